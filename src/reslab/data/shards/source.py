"""Trying again what may work the next time, each time after a longer pause."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from reslab.data.location import Url

Result = TypeVar("Result")


class TransientError(Exception):
    """A failure that may pass; the text is the reason."""


class CorruptData(TransientError):
    """What came is not what the index says."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often something is tried, and the pauses between."""

    attempts: int
    first: float  # seconds; each pause is twice the one before
    longest: float

    def pause(self, what: str, attempt: int) -> float:
        """Seconds after the failed attempt of that number, from 0.

        Up to half of it is taken off, by a hash: those refused together come back apart.
        """
        digest = blake2b(f"{what} {attempt}".encode(), digest_size=8).digest()
        part = int.from_bytes(digest, "big") / 2**64
        return min(self.first * 2**attempt, self.longest) * (1 - part / 2)


def retry(
    act: Callable[[], Result],
    what: str,
    patience: RetryPolicy,
    *,
    failed: Callable[[int, TransientError], None] = lambda attempt, failure: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """What `act` returns when it succeeds; the last Passing if it does not in so many attempts.

    `failed` hears of each failure after which there is another attempt.
    """
    for attempt in range(patience.attempts - 1):
        try:
            return act()
        except TransientError as failure:
            failed(attempt, failure)
        sleep(patience.pause(what, attempt))
    return act()


CONNECTIONS = 32  # to S3 at a time
TIMEOUT = 60.0  # seconds for one answer; 256 KiB take that long on a line of 35 kbit/s
PASSING = (408, 425, 429)  # statuses of HTTP below 500 that ask to come again
EXTRA = "pip install 'reslab[remote]'"
MAX_REASON = 160  # characters of what a library says


class PermanentError(Exception):
    """A failure that another attempt would not mend; the text is the reason."""


class NotFound(PermanentError):
    """There is no such file; or the server will not say that there is."""


class RangeReader:
    """Files below a URL. Any thread may read; every request has an end."""

    def __init__(self, url: Url) -> None:
        self.url = url
        self._files, root = open_filesystem(url)
        self._root = root.rstrip("/")

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop` of a file, in one attempt; Passing or Final."""
        try:
            data = self._ask(f"{self._root}/{name}", start, stop)
        except Exception as error:  # each library below has its own, a few hundred in all
            raise failure_of(error) from error
        if len(data) > stop - start:
            raise PermanentError(
                "the server sends more than it is asked for: it knows no ranges of bytes"
            )
        if len(data) < stop - start:
            raise TransientError(f"{len(data):,} of {stop - start:,} bytes came")
        return data

    def _ask(self, path: str, start: int, stop: int) -> bytes:
        if not self._files.async_impl:
            return self._files.cat_file(path, start=start, end=stop)
        from fsspec.asyn import sync

        cat, loop = self._files._cat_file, self._files.loop  # as fsspec asks to be called in time
        data: Any = sync(loop, cat, path, start=start, end=stop, timeout=TIMEOUT)
        return data


def open_filesystem(url: Url) -> tuple[Any, str]:
    """fsspec's file system and the root in it; ImportError says what is missing."""
    protocol = str(url).partition(":")[0]
    try:
        from fsspec.core import url_to_fs

        if protocol in ("http", "https"):
            # the proxies of the environment, and the passwords of ~/.netrc
            return url_to_fs(str(url), client_kwargs={"trust_env": True})
        if protocol == "s3":
            return url_to_fs(str(url), config_kwargs={"max_pool_connections": CONNECTIONS})
        return url_to_fs(str(url))
    except ImportError:
        how = "pip install gcsfs" if protocol == "gs" else EXTRA
        raise ImportError(f"{url}: reading {protocol}:// needs more: {how}") from None


def failure_of(error: Exception) -> TransientError | PermanentError:
    """What an exception of the libraries means."""
    from fsspec.exceptions import FSTimeoutError

    status = getattr(error, "status", None)  # of aiohttp's, which may not be installed
    name = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return NotFound("there is no such file")
    if isinstance(error, PermissionError) or status in (401, 403):
        return NotFound("access is refused")
    if name == "NoCredentialsError":
        return PermanentError(
            "no credentials are found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "FSSPEC_S3_ANON=true for a public bucket"
        )
    if name == "ClientConnectorDNSError":
        return NoHost("no such host, or no network")
    if status == 416:
        return PermanentError("it is shorter than the index says")
    if name in ("InvalidURL", "ParamValidationError"):
        return PermanentError(f"no valid address ({short_reason(error)})")
    if isinstance(status, int) and 400 <= status < 500 and status not in PASSING:
        return PermanentError(f"the server answers {status}")
    if isinstance(error, FSTimeoutError | TimeoutError):
        return TransientError(f"no whole answer within {TIMEOUT:g} s")
    return TransientError(f"the server answers {status}" if status else short_reason(error))


class NoHost(TransientError):
    """The name of the server is not known; a name once known may be lost for a while."""


def short_reason(error: Exception) -> str:
    """What a library says, in a line that is not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."
