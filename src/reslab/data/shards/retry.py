"""Errors of requests to servers, and retries of those that may pass."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from reslab.runtime.threads import Result


class TransientError(Exception):
    """Raised for a failure after which a retry may succeed; the message is the reason."""


class CorruptData(TransientError):
    """Raised if bytes do not match the index, or the index its checksum."""


class PermanentError(Exception):
    """Raised for a failure that retries cannot resolve; the message is the reason."""


class NotFound(PermanentError):
    """Raised if a file does not exist."""


class AccessDenied(NotFound):
    """Raised if access to a file is denied; for S3, the file may also be missing."""


@dataclass(frozen=True)
class RetryPolicy:
    """The number of attempts for a request, and the pauses between them."""

    attempts: int
    first: float  # seconds; the pause doubles after each attempt
    longest: float
    sleep: Callable[[float], None] = time.sleep

    def pause(self, what: str, attempt: int) -> float:
        """Return the seconds to wait after a failed attempt, counted from 0.

        A hash of `what` shortens the pause by up to half, so that clients do not all retry at the
        same time.
        """
        digest = blake2b(f"{what} {attempt}".encode(), digest_size=8).digest()
        fraction = int.from_bytes(digest, "big") / 2**64
        return min(self.first * 2**attempt, self.longest) * (1 - fraction / 2)


def retry(
    act: Callable[[], Result],
    what: str,
    policy: RetryPolicy,
    on_failure: Callable[[int, TransientError], None] = lambda attempt, failure: None,
) -> Result:
    """Call `act` until it succeeds, and return its value.

    A TransientError is passed to `on_failure`, or raised at the last attempt. Other errors are
    raised at once.
    """
    for attempt in range(policy.attempts - 1):
        try:
            return act()
        except TransientError as failure:
            on_failure(attempt, failure)
        policy.sleep(policy.pause(what, attempt))
    return act()
