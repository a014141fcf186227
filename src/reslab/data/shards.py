"""Packed pictures: tar shards that webdataset reads too, and an index by which any is one pread.

A packed folder holds `shard-000000.tar` and so on, and `index.safetensors`, which is written last:
a folder without it is no packed folder. A sample is two members of a shard, `000123.jpg` and
`000123.cls`, the label in decimal digits. The index keeps the pictures in the order and by the
names of the set they were packed from, so that whatever is drawn or split by order or name comes
out the same; where each lies in the shards is another matter.
"""

import hashlib
import json
import os
import threading
import weakref
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from reslab.data.decode import BadPicture
from reslab.data.pictures import PictureSet

INDEX = "index.safetensors"
FORMAT = 1
COLUMNS = {  # of the index: [N] each
    "labels": np.int64,
    "shards": np.int64,  # the number of the shard
    "offsets": np.int64,  # of the picture's first byte in it
    "lengths": np.int64,
    "checksums": np.uint32,  # CRC-32 of those bytes
}
KEPT_OPEN = 512  # shards; a process may usually have 1,024 files open


@dataclass(frozen=True)
class Shard:
    """A tar file of samples, and what it must be."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What is in the shards, and where."""

    name: str  # of the set: "train", "validation", or what its folder was called
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    shorter_side: int | None  # larger pictures were reduced to it; None: all are as they were
    quality: int | None  # of the JPEGs so made
    shards: tuple[Shard, ...]
    files: list[str]  # names in the original set, in its order
    columns: dict[str, np.ndarray]  # COLUMNS

    def facts(self) -> dict:
        """All but the files and the columns."""
        return {
            "format": FORMAT,
            "name": self.name,
            "classes": self.classes,
            "ids": self.ids,
            "shorter_side": self.shorter_side,
            "quality": self.quality,
            "shards": [asdict(shard) for shard in self.shards],
        }


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
        self.columns = index.columns
        self.rows = {file: row for row, file in enumerate(index.files)}
        self._descriptors: dict[int, int] = {}  # shard to open file
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._descriptors)

    def __call__(self, file: str) -> bytes:
        row = self.rows[file]
        shard, offset, length, checksum = (
            int(self.columns[name][row]) for name in ("shards", "offsets", "lengths", "checksums")
        )
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


def index_bytes(index: Index) -> bytes:
    """The index file. All metadata is one entry, for safetensors does not order them."""
    arrays: dict[str, np.ndarray] = {
        name: np.ascontiguousarray(index.columns[name], dtype) for name, dtype in COLUMNS.items()
    }
    # no file's name can hold a zero byte; one that is not UTF-8 comes back as it was
    names = "\0".join(index.files).encode("utf-8", "surrogateescape")
    arrays["files"] = np.frombuffer(names, np.uint8)
    facts = index.facts()
    return save(arrays, {"facts": json.dumps({**facts, "sha256": _sha256(facts, arrays)})})


def read_index(folder: Path) -> Index:
    """The index of a packed folder, checked against its own checksum."""
    path = folder / INDEX
    try:
        with safe_open(path, "numpy") as opened:
            facts = json.loads((opened.metadata() or {}).get("facts", "{}"))
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again") from None
    if facts.get("format", 0) > FORMAT:
        raise ValueError(
            f"{path} is of format {facts['format']}, this reslab reads {FORMAT}: update reslab"
        )
    if facts.pop("sha256", "") != _sha256(facts, arrays):
        raise ValueError(f"{path} is damaged (its checksum is another); copy it again")
    files = arrays.pop("files").tobytes().decode("utf-8", "surrogateescape").split("\0")
    return Index(
        facts["name"],
        tuple(facts["classes"]),
        tuple(facts["ids"]),
        facts["shorter_side"],
        facts["quality"],
        tuple(Shard(**shard) for shard in facts["shards"]),
        files,
        arrays,
    )


def _sha256(facts: dict, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()
