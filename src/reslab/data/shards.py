"""Packed pictures: tar shards that webdataset reads too, and an index by which any is one pread.

A packed folder holds `shard-000000.tar` and so on, and `index.safetensors`, which is written last:
a folder without it is no packed folder. A sample is two members of a shard, `000123.jpg` and
`000123.cls`, the label in decimal digits. The index keeps the pictures in the order and by the
names of the set they were packed from, so that whatever is drawn or split by order or name comes
out the same; where each lies in the shards is another matter.
"""

import os
import threading
import weakref
import zlib
from pathlib import Path

import torch

from reslab.data.decode import BadPicture
from reslab.data.pictures import PictureSet
from reslab.data.shard_index import INDEX, Index, Members, index_of

KEPT_OPEN = 512  # shards; a process may usually have 1,024 files open


def is_packed(folder: Path) -> bool:
    """Whether `folder` holds shards with their index."""
    return (folder / INDEX).is_file()


def open_part(folder: Path) -> PictureSet:
    """The set whose shards lie in `folder`; each read is one pread, checked by its checksum.

    ValueError names the index or the shard that is missing, truncated or damaged.
    """
    index = read_index(folder)
    for shard in index.shards:
        path = folder / shard.name
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise ValueError(f"{path} is missing; copy the whole folder again")
        if size != shard.size:
            raise ValueError(
                f"{path} has {size:,} bytes instead of {shard.size:,}: it is truncated or another "
                "file; copy it again"
            )
    labels = torch.from_numpy(index.columns["labels"])
    reader = ShardReader(folder, index)
    return PictureSet(index.name, index.files, labels, index.classes, index.ids, reader)


class ShardReader:
    """The bytes of a picture by its name. Any thread may ask; none waits for another's read.

    A shard is opened when it is first needed and closed when the reader is collected.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self.paths = [folder / shard.name for shard in index.shards]
        self.members = Members(index)
        self._descriptors: dict[int, int] = {}  # shard to open file
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._descriptors)

    def __call__(self, file: str) -> bytes:
        shard, offset, length, checksum = self.members(file)
        try:
            data = self._pread(shard, length, offset)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BadPicture(f"{file}: {self.paths[shard]} cannot be read ({reason})") from None
        if zlib.crc32(data) != checksum:
            raise BadPicture(
                f"{file}: its bytes in {self.paths[shard]} are not those that were packed; "
                "copy that shard again"
            )
        return data

    def _pread(self, shard: int, length: int, offset: int) -> bytes:
        if shard >= KEPT_OPEN:
            descriptor = os.open(self.paths[shard], os.O_RDONLY)
            try:
                return os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
        descriptor = self._descriptors.get(shard)
        if descriptor is None:
            with self._lock:
                if shard not in self._descriptors:
                    self._descriptors[shard] = os.open(self.paths[shard], os.O_RDONLY)
                descriptor = self._descriptors[shard]
        return os.pread(descriptor, length, offset)


def _close_all(descriptors: dict[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


def read_index(folder: Path) -> Index:
    """The index of a packed folder, checked against its own checksum."""
    return index_of((folder / INDEX).read_bytes(), str(folder / INDEX))
