"""Read byte ranges of remote files as whole blocks, with a disk cache and retries."""

import re
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote

from reslab.data.location import Url
from reslab.data.shards.block_cache import BlockCache
from reslab.data.shards.index import (
    INDEX,
    Index,
    Shard,
    checked_facts,
    header_size,
    parse_header,
    parse_index,
)
from reslab.data.shards.retry import (
    AccessDenied,
    CorruptData,
    NotFound,
    PermanentError,
    RetryPolicy,
    TransientError,
    retry,
)
from reslab.runtime.threads import map_in_order

BLOCK_BYTES = 256 * 1024  # access is random: more of a larger block would be unused
CONNECTIONS = 32  # to S3, at the same time
TIMEOUT = 60.0  # seconds per response; enough for 256 KiB at 35 kbit/s
RETRIED_STATUSES = (408, 425, 429)  # HTTP statuses below 500 after which a retry may succeed
EXTRA = "pip install 'reslab[remote]'"
MAX_REASON = 160  # characters quoted from a library's message
FETCHERS = 16  # prefetching threads; they mostly wait for the server
LOCKS = 1024
MAX_HEADER_BYTES = 100_000_000  # more than the header of any index
MAX_INDEX_BYTES = 2**33  # about 100 million images
UNQUOTED = "/:%@!$&'()*+,;=~[]"  # in the path of a URL; it may be quoted already
_QUERY = re.compile(r"(\w+://[^\s?]*)\?[^\s'\")]*")


class RemoteShards:
    """Read byte ranges of the files below a URL as whole blocks, and cache them; thread-safe.

    Each request is a single attempt, which raises TransientError or PermanentError if it fails.
    """

    def __init__(self, url: Url, cache: BlockCache, block: int = BLOCK_BYTES) -> None:
        self.url, self.cache, self.block = url, cache, block
        self._filesystem, root = open_filesystem(url)
        self._root = root.rstrip("/")
        self._reached = False  # whether the server has ever answered
        self._locks = [threading.Lock() for _ in range(LOCKS)]  # only one thread fetches a block
        self._starting = threading.Lock()
        self._queue: SimpleQueue[tuple[Shard, int, int] | None] | None = None  # to prefetch

    def place(self, shard: Shard) -> str:
        """Return the URL of a shard."""
        return f"{self.url}/{shard.name}"

    def read_range(self, shard: Shard, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`; one request fetches all missing blocks."""
        numbers = self._numbers(start, stop)
        with self._locks[hash((shard.sha256, numbers[0])) % LOCKS]:
            blocks = {
                number: self.cache.find(shard.sha256, number, self._length(shard, number))
                for number in numbers
            }
            missing = [number for number in numbers if blocks[number] is None]
            if missing:
                blocks |= self._fetch(shard, range(missing[0], missing[-1] + 1))
        joined = b"".join(block for block in blocks.values() if block is not None)
        skipped = numbers[0] * self.block
        return joined[start - skipped : stop - skipped]

    def drop(self, shard: Shard, start: int, stop: int) -> None:
        """Remove the blocks of a range with wrong bytes from the cache."""
        for number in self._numbers(start, stop):
            self.cache.drop(shard.sha256, number)

    def prefetch(self, shard: Shard, start: int, stop: int) -> None:
        """Fetch a range into the cache in the background; errors are raised only when reading."""
        with self._starting:
            if self._queue is None:
                self._queue = start_fetchers(weakref.WeakMethod(self._prefetch_now))
                weakref.finalize(self, stop_fetchers, self._queue)
        self._queue.put((shard, start, stop))

    def request(self, name: str, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop` of a file, bypassing the cache."""
        try:
            data = self._cat(self._path(name), start, stop)
        except Exception as error:  # each underlying library raises its own exceptions
            raise classify_failure(error, self._reached) from error
        self._reached = True
        if len(data) > stop - start:
            raise PermanentError(
                "the server sent more bytes than requested: it does not support byte ranges"
            )
        if len(data) < stop - start:
            raise TransientError(f"received {len(data):,} of {stop - start:,} bytes")
        return data

    def _path(self, name: str) -> str:
        """Return the path of a file in the file system; a signature is sent as it was given."""
        path = f"{self._root}/{name}"
        return quote(path, safe=UNQUOTED) + self.url.query if self.url.query else path

    def _cat(self, path: str, start: int, stop: int) -> bytes:
        if not self._filesystem.async_impl:
            return self._filesystem.cat_file(path, start=start, end=stop)
        from fsspec.asyn import sync

        # fsspec's documented way to set a timeout per call
        cat, loop = self._filesystem._cat_file, self._filesystem.loop
        data: Any = sync(loop, cat, path, start=start, end=stop, timeout=TIMEOUT)
        return data

    def _numbers(self, start: int, stop: int) -> range:
        """Return the numbers of the blocks that contain a range."""
        return range(start // self.block, (stop - 1) // self.block + 1)

    def _length(self, shard: Shard, number: int) -> int:
        return min(self.block, shard.size - number * self.block)

    def _fetch(self, shard: Shard, numbers: range) -> dict[int, bytes]:
        first = numbers[0] * self.block
        data = self.request(shard.name, first, min(numbers.stop * self.block, shard.size))
        blocks = {
            number: data[number * self.block - first : (number + 1) * self.block - first]
            for number in numbers
        }
        for number, block in blocks.items():
            self.cache.keep(shard.sha256, number, block)
        return blocks

    def _prefetch_now(self, shard: Shard, start: int, stop: int) -> None:
        numbers = self._numbers(start, stop)
        cached = (self.cache.has(shard.sha256, n, self._length(shard, n)) for n in numbers)
        if not self.cache.keeps or all(cached):
            return
        with suppress(TransientError, PermanentError):
            self.read_range(shard, start, stop)


def start_fetchers(fetch: "weakref.WeakMethod[Callable[[Shard, int, int], None]]") -> SimpleQueue:
    """Start daemon threads that fetch the ranges put into the returned queue.

    They reference `fetch` weakly, so that its owner can be garbage-collected.
    """
    queue: SimpleQueue[tuple[Shard, int, int] | None] = SimpleQueue()
    for number in range(FETCHERS):
        name = f"reslab-fetch-{number}"
        threading.Thread(target=_work, args=(queue, fetch), name=name, daemon=True).start()
    return queue


def _work(queue: SimpleQueue, fetch: weakref.WeakMethod) -> None:
    while (byte_range := queue.get()) is not None:
        if (method := fetch()) is not None:
            method(*byte_range)
        del method  # otherwise a waiting thread would keep the owner alive


def stop_fetchers(queue: SimpleQueue) -> None:
    """End the threads and discard the work still queued."""
    while not queue.empty():
        with suppress(Exception):
            queue.get_nowait()
    for _ in range(FETCHERS):
        queue.put(None)


def open_filesystem(url: Url) -> tuple[Any, str]:
    """Return fsspec's file system and root path; raise ImportError if a package is missing."""
    protocol = str(url).partition(":")[0]
    try:
        from fsspec.core import url_to_fs

        if protocol in ("http", "https"):
            options = {
                "trust_env": True,  # proxies from the environment, passwords from ~/.netrc
                "headers": {"Accept-Encoding": "identity"},  # ranges of the file itself
                "raise_for_status": check_response,
            }
            return url_to_fs(str(url), client_kwargs=options, encoded=bool(url.query))
        if protocol == "s3":
            return url_to_fs(str(url), config_kwargs={"max_pool_connections": CONNECTIONS})
        return url_to_fs(str(url))
    except ImportError:
        command = "pip install gcsfs" if protocol == "gs" else EXTRA
        raise ImportError(f"{url}: {protocol}:// needs another package: {command}") from None


async def check_response(response: Any) -> None:
    """Raise PermanentError if aiohttp's `response` is not a range of the requested file."""
    if response.status not in (200, 206):
        return
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise PermanentError(
            f"the server compresses files (Content-Encoding: {short_reason(encoding)}), so that "
            "byte ranges of them cannot be read: switch this off for the folder"
        )
    if response.content_type == "text/html":
        raise PermanentError(
            "the server responded with a web page (text/html) and not with the file: it may ask "
            "for a login"
        )


def classify_failure(error: Exception, reached: bool) -> TransientError | PermanentError:
    """Convert a library's exception to a transient or permanent error with a plain message.

    An unknown host name is a permanent error (a typo), unless the server was `reached` before.
    """
    from fsspec.exceptions import FSTimeoutError

    status = getattr(error, "status", None)  # from aiohttp, which may not be installed
    name = type(error).__name__
    if isinstance(error, PermanentError):  # from check_response
        return error
    if isinstance(error, FileNotFoundError):
        return NotFound("no such file")
    if isinstance(error, PermissionError) or status in (401, 403):
        return AccessDenied("access denied")
    if name == "NoCredentialsError":
        return PermanentError(
            "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "FSSPEC_S3_ANON=true for a public bucket"
        )
    if name == "ClientConnectorDNSError":
        kind = TransientError if reached else PermanentError
        return kind("no such host, or no network")
    if status == 416:
        return PermanentError("the file is shorter than in the index")
    if name in ("InvalidURL", "ParamValidationError"):
        return PermanentError(f"not a valid address ({short_reason(error)})")
    if isinstance(status, int) and 400 <= status < 500 and status not in RETRIED_STATUSES:
        return PermanentError(f"the server responded with status {status}")
    if isinstance(error, FSTimeoutError | TimeoutError):
        return TransientError(f"no complete response within {TIMEOUT:g} s")
    reason = f"the server responded with status {status}" if status else short_reason(error)
    return TransientError(reason)


def short_reason(error: Exception | str) -> str:
    """Return a library's message on one line, without queries of URLs, truncated if too long."""
    text = _QUERY.sub(r"\1", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."


def fetch_index(shards: RemoteShards, policy: RetryPolicy) -> Index:
    """Fetch the index; the checksum in its header is the cache key for the rest of the file.

    The header is requested once, without the cache, and each block of the file with retries.
    """
    path = str(shards.url / INDEX)
    size = header_size(shards.request(INDEX, 0, 8))
    if size > MAX_HEADER_BYTES:
        raise CorruptData("not an index of packed images, or damaged")
    try:
        header = parse_header(shards.request(INDEX, 8, 8 + size))
        # must be hexadecimal: the cache creates a folder with this name, which must not be a path
        digest = bytes.fromhex(checked_facts(header)["sha256"]).hex()
        ends = [
            entry["data_offsets"][1] for name, entry in header.items() if not name.startswith("__")
        ]
        length = int(8 + size + max(ends))
    except (ValueError, LookupError, AttributeError, TypeError):
        raise CorruptData("not an index of packed images, or damaged") from None
    if length > MAX_INDEX_BYTES:
        raise CorruptData("an index that is too large, or damaged")
    file = Shard(INDEX, length, f"index-{digest}")
    starts = range(0, length, shards.block)

    def piece(start: int) -> bytes:
        read = partial(shards.read_range, file, start, min(start + shards.block, length))
        return retry(read, f"{path} {start}", policy)

    data = b"".join(map_in_order(piece, starts, FETCHERS, FETCHERS))
    try:
        return parse_index(data, path)
    except ValueError as error:
        shards.drop(file, 0, length)
        raise CorruptData(str(error).removeprefix(f"{path} ")) from None
