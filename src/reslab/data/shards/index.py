"""The index of packed images: what is in the shards, where, and what it must be."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

INDEX = "index.safetensors"
FORMAT = 1
COLUMNS = {  # [N] each
    "labels": np.int64,
    "shards": np.int64,  # the number of the shard
    "offsets": np.int64,  # of the image's first byte in it
    "lengths": np.int64,
    "checksums": np.uint32,  # CRC-32 of those bytes
}


@dataclass(frozen=True)
class Shard:
    """A tar file of samples, and what it must be; equal checksums mean equal bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """The contents of the shards: what each image is and where it lies."""

    name: str  # of the set: "train", "validation", or what its folder was called
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    shorter_side: int | None  # larger images were reduced to it; None: all are as they were
    quality: int | None  # of the JPEGs so made
    shards: tuple[Shard, ...]
    files: list[str]  # names in the original set, in its order
    columns: dict[str, np.ndarray]  # COLUMNS

    def facts(self) -> dict:
        """Return all but the files and the columns."""
        return {
            "format": FORMAT,
            "name": self.name,
            "classes": self.classes,
            "ids": self.ids,
            "shorter_side": self.shorter_side,
            "quality": self.quality,
            "shards": [asdict(shard) for shard in self.shards],
        }

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {file: row for row, file in enumerate(self.files)}

    def locate(self, file: str) -> tuple[Shard, int, int, int]:
        """Return the shard of an image, where its bytes start and stop there, and their CRC-32."""
        row = self._rows[file]
        number, start, length, checksum = (
            int(self.columns[name][row]) for name in ("shards", "offsets", "lengths", "checksums")
        )
        return self.shards[number], start, start + length, checksum


def index_bytes(index: Index) -> bytes:
    """Serialise an index, with a checksum of all that it holds."""
    arrays: dict[str, np.ndarray] = {
        name: np.ascontiguousarray(index.columns[name], dtype) for name, dtype in COLUMNS.items()
    }
    # no file's name can hold a zero byte; one that is not UTF-8 comes back as it was
    names = "\0".join(index.files).encode("utf-8", "surrogateescape")
    arrays["files"] = np.frombuffer(names, np.uint8)
    facts = index.facts()
    # one entry of metadata, for safetensors does not keep the order of several
    return save(arrays, {"facts": json.dumps({**facts, "sha256": _sha256(facts, arrays)})})


def parse_index(data: bytes, path: str) -> Index:
    """Parse the bytes of an index file; ValueError calls it `path` and says what is wrong."""
    try:
        facts = checked_facts(parse_header(data[8 : 8 + header_size(data)]))
        arrays = load(data)
    except (SafetensorError, ValueError) as error:
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


def header_size(data: bytes) -> int:
    """Return the length of a safetensors header, from the file's first eight bytes."""
    return int.from_bytes(data[:8], "little")


def parse_header(data: bytes) -> dict:
    """Parse the header of a safetensors file; ValueError if it is none."""
    header = json.loads(data)
    if not isinstance(header, dict):
        raise ValueError("its header is none")
    return header


def checked_facts(header: dict) -> dict:
    """Return `Index.facts` with their checksum; empty for a file that is no index."""
    return json.loads(header.get("__metadata__", {}).get("facts", "{}"))


def _sha256(facts: dict, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()
