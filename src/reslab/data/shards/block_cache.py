"""Blocks of files from afar, kept on this machine's disk; several processes share one cache.

A block is a file under the SHA-256 of what it is part of, so a shard that changes is another
shard, and the same shard from two servers is one. Nobody waits for anybody: a block is written
beside and renamed, and one that is removed or damaged is fetched again by whoever misses it.
"""

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from reslab.errors import os_reason

GIGABYTE = 1_000_000_000
MAX_BYTES = 50 * GIGABYTE  # less on a disk with little room: half of what is free
KEPT_FRACTION = 0.9  # of the limit, after the oldest blocks are removed
RECOUNT_FRACTION = 0.05  # of the limit: so much is written before the blocks are counted again
STALE = 3600.0  # seconds after which a half-written block is nobody's
Warn = Callable[[str], None]


def cache_folder() -> Path:
    """$RESLAB_CACHE, or a folder in the user's cache."""
    return Path(os.environ.get("RESLAB_CACHE") or user_cache_path("reslab") / "shards")


class BlockCache:
    """At most `limit` bytes of blocks; those not used for longest go first.

    What the disk refuses is told of once, and nothing is kept from then on.
    """

    def __init__(
        self,
        folder: Path,
        warn: Warn,
        *,
        limit: int | None = None,  # None: see `MOST`
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.limit, self.warn, self.clock = folder, limit, warn, clock
        self.keeps = True
        self._left = 0.0  # bytes that may be written before the blocks are counted
        self._lock = threading.Lock()

    def find(self, key: str, number: int, size: int) -> bytes | None:
        """The block of that number and size; None if it is not kept."""
        path = self._path(key, number)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):
            os.utime(path)  # used now
        return data if len(data) == size else None

    def has(self, key: str, number: int, size: int) -> bool:
        """Whether `find` would find it."""
        try:
            return self._path(key, number).stat().st_size == size
        except OSError:
            return False

    def keep(self, key: str, number: int, data: bytes) -> None:
        """Write a block, after room is made for it."""
        if not self.keeps:
            return
        path = self._path(key, number)
        beside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock:
                self._left -= len(data)
                if self._left < 0:
                    self._make_room(len(data))
            beside.write_bytes(data)
            os.replace(beside, path)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            self._give_up(error)

    def drop(self, key: str, number: int) -> None:
        """Forget a block, whose bytes are wrong."""
        with suppress(OSError):
            self._path(key, number).unlink()

    def _path(self, key: str, number: int) -> Path:
        return self.folder / key[:32] / f"{number:06d}"

    def _make_room(self, wanted: int) -> None:
        """Count the blocks, and remove the oldest where there are too many."""
        blocks, total = [], 0
        for entry in _files(self.folder):
            with suppress(OSError):  # another process may have removed it
                facts = entry.stat()
                if not entry.name.endswith(".tmp"):
                    blocks.append((facts.st_mtime_ns, facts.st_size, entry.path))
                    total += facts.st_size
                elif self.clock() - facts.st_mtime > STALE:
                    os.unlink(entry.path)
        limit = self.limit
        if limit is None:
            limit = min(MAX_BYTES, (total + shutil.disk_usage(self.folder).free) // 2)
        if wanted > limit:
            raise OSError(errno.ENOSPC, "there is no room for a block")
        for _, size, path in sorted(blocks):
            if total + wanted <= KEPT_FRACTION * limit:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size
        self._left = RECOUNT_FRACTION * limit

    def _give_up(self, error: OSError) -> None:
        with self._lock:
            first, self.keeps = self.keeps, False
        if first:
            reason = os_reason(error)
            self.warn(f"cache {self.folder}: {reason}; reading goes on without it")


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files of all folders in it."""
    for outer in os.scandir(folder):
        if outer.is_dir():
            with os.scandir(outer) as inner:
                yield from inner
