"""Cache blocks of remote files on disk; several processes may share the cache.

A block is a file in a folder named by the SHA-256 of its shard: a changed shard gets a new folder,
and equal shards on two servers share one. Processes do not wait for each other: a block is written
under a temporary name and then renamed, and a removed or damaged block is fetched again.
"""

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from reslab.errors import os_reason
from reslab.runtime.events import Log
from reslab.runtime.files import read_regular
from reslab.runtime.writing import atomic_write

GIGABYTE = 1_000_000_000
MAX_BYTES = 50 * GIGABYTE  # or half of the disk space available to it, if less
KEPT_FRACTION = 0.9  # of the limit; kept when the oldest blocks are evicted
RECOUNT_FRACTION = 0.05  # of the limit; written before the cache is measured again
STALE = 3600.0  # seconds after which a temporary file counts as abandoned


def cache_folder() -> Path:
    """Return $RESLAB_CACHE, or else a folder in the user's cache."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("RESLAB_CACHE") or user_cache_path("reslab") / "shards")


class BlockCache:
    """Keep at most `limit` bytes of blocks, and evict the least recently used first.

    If a block cannot be written, this is reported once and no further blocks are kept.
    """

    def __init__(
        self,
        folder: Path,
        on_trouble: Log,
        *,
        limit: int | None = None,  # None: see MAX_BYTES
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.limit, self.clock = folder, limit, clock
        self.on_trouble = on_trouble
        self.keeps = True
        self._left = 0.0  # bytes to write before the cache is measured again
        self._lock = threading.Lock()

    def find(self, key: str, number: int, size: int | None = None) -> bytes | None:
        """Return block `number` of the shard `key` if it is cached, with this size if it is known.

        Return None otherwise.
        """
        path = self._path(key, number)
        try:
            data = read_regular(path)
        except OSError:
            return None
        with suppress(OSError):
            os.utime(path)  # marks it as used
        return data if size in (None, len(data)) else None

    def has(self, key: str, number: int, size: int) -> bool:
        """Return whether `find` would return the block."""
        try:
            return self._path(key, number).stat().st_size == size
        except OSError:
            return False

    def keep(self, key: str, number: int, data: bytes) -> None:
        """Write a block to the cache; evict others first if necessary."""
        if not self.keeps:
            return
        path = self._path(key, number)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock:
                self._left -= len(data)
                if self._left < 0:
                    self._make_room(len(data))
            atomic_write(path, data, durable=False)
        except OSError as error:
            self._give_up(error)

    def drop(self, key: str, number: int) -> None:
        """Remove a damaged block."""
        with suppress(OSError):
            self._path(key, number).unlink()

    def _path(self, key: str, number: int) -> Path:
        return self.folder / key[:32] / f"{number:06d}"

    def _make_room(self, wanted: int) -> None:
        """Measure the cache, and evict the least recently used blocks to fit `wanted` bytes."""
        blocks, total = [], 0
        for entry in _files(self.folder):
            with suppress(OSError):  # another process may have removed it
                status = entry.stat()
                if not entry.name.endswith(".tmp"):
                    blocks.append((status.st_mtime_ns, status.st_size, entry.path))
                    total += status.st_size
                elif self.clock() - status.st_mtime > STALE:
                    os.unlink(entry.path)
        limit = self.limit
        if limit is None:
            limit = min(MAX_BYTES, (total + shutil.disk_usage(self.folder).free) // 2)
        if wanted > limit:
            raise OSError(errno.ENOSPC, "no space for a block")
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
            self.on_trouble(f"cache {self.folder}: {os_reason(error)}; continuing without a cache")


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the files in the folders of all shards."""
    for shard in os.scandir(folder):
        if shard.is_dir():
            with os.scandir(shard) as blocks:
                yield from blocks
