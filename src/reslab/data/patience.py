"""Trying again what may work the next time, each time after a longer pause."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

Got = TypeVar("Got")


class Passing(Exception):
    """A failure that may pass; the text is the reason."""


class WrongBytes(Passing):
    """What came is not what the index says."""


@dataclass(frozen=True)
class Patience:
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


def persist(
    act: Callable[[], Got],
    what: str,
    patience: Patience,
    *,
    failed: Callable[[int, Passing], None] = lambda attempt, failure: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Got:
    """What `act` returns when it succeeds; the last Passing if it does not in so many attempts.

    `failed` hears of each failure after which there is another attempt.
    """
    for attempt in range(patience.attempts - 1):
        try:
            return act()
        except Passing as failure:
            failed(attempt, failure)
        sleep(patience.pause(what, attempt))
    return act()
