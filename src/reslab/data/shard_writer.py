"""Files that appear together or not at all, and tar shards among them."""

import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from reslab.data.shard_index import Shard

BLOCK = tarfile.BLOCKSIZE


class Draft:
    """Files and folders in the making: under temporary names until all are published."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self._files: dict[Path, BufferedWriter | None] = {}  # by the final name, in order

    def make_folder(self, path: Path) -> None:
        """Make `path`, its parents too; what was there before is not ours to remove."""
        for place in reversed([path, *path.parents]):
            if not place.exists():
                self._folders.append(place)
                place.mkdir()

    def create(self, path: Path) -> BufferedWriter:
        """A new file that will be called `path`."""
        self._files[path] = None  # before it exists: a signal may come between
        self._files[path] = file = open(_beside(path), "xb")  # noqa: SIM115
        return file

    def write(self, path: Path, data: bytes) -> None:
        """A whole file that will be called `path`."""
        with _blaming(path), self.create(path) as file:
            file.write(data)

    def publish(self) -> None:
        """Give every file its name, in the order of their making."""
        for path in self._files:
            with _blaming(path), open(_beside(path), "rb") as file:
                os.fsync(file.fileno())
        for path in self._files:
            os.rename(_beside(path), path)
        for folder in {path.parent for path in self._files}:
            _fsync(folder)  # the names themselves

    def remove(self) -> None:
        """Leave nothing behind, as far as the disk lets us."""
        for path, file in reversed(self._files.items()):
            with suppress(OSError):  # of bytes that a full disk did not take
                if file:
                    file.close()
            for name in (_beside(path), path):
                with suppress(OSError):
                    name.unlink(missing_ok=True)
        for folder in reversed(self._folders):
            with suppress(OSError):
                folder.rmdir()


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp")


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """What goes wrong with an open file does not say which; this does."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


class ShardWriter:
    """Samples into tar files of at most `limit` bytes, unless a single sample is larger."""

    def __init__(self, folder: Path, limit: int, draft: Draft) -> None:
        self.folder, self.limit, self.draft = folder, limit, draft
        self._finished: list[Shard] = []
        self._samples = 0
        self._file: BufferedWriter | None = None

    def add(self, suffix: str, data: bytes, label: int) -> tuple[int, int]:
        """Write one sample: the number of its shard, and where in it `data` begins."""
        key = f"{self._samples:06d}"  # unique across the shards
        sample = member(f"{key}.{suffix}", data) + member(f"{key}.cls", str(label).encode())
        if self._file and self._size + len(sample) + 2 * BLOCK > self.limit:
            self.finish()
        if self._file is None:
            self._path = self.folder / f"shard-{len(self._finished):06d}.tar"
            self._file = self.draft.create(self._path)
            self._size, self._digest = 0, hashlib.sha256()
        start = self._size
        self._write(sample)
        self._samples += 1
        return len(self._finished), start + BLOCK

    def finish(self) -> list[Shard]:
        """End the shard that is being written; all shards until now."""
        assert self._file, "a shard has a sample"
        self._write(bytes(2 * BLOCK))  # the end of a tar file
        with _blaming(self._path):
            self._file.close()
        self._finished.append(Shard(self._path.name, self._size, self._digest.hexdigest()))
        self._file = None
        return self._finished

    def _write(self, data: bytes) -> None:
        assert self._file
        with _blaming(self._path):
            self._file.write(data)
        self._digest.update(data)
        self._size += len(data)


def member(name: str, data: bytes) -> bytes:
    """A file in a tar: no owner and no time, so that the same pictures give the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)
