"""The index of packed images: which images are in the shards, their positions and checksums."""

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
    "offsets": np.int64,  # of the image's first byte in the shard
    "lengths": np.int64,
    "checksums": np.uint32,  # CRC-32 of the image's bytes
}


@dataclass(frozen=True)
class Shard:
    """The name, size and checksum of a tar file of samples."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """The images in the shards, and their positions."""

    name: str  # of the set: "train", "validation", or the name of its folder
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    shorter_side: int | None  # of reduced images; None if no images were reduced
    quality: int | None  # JPEG quality of reduced images
    shards: tuple[Shard, ...]
    files: list[str]  # names in the original set, in its order
    columns: dict[str, np.ndarray]  # with the keys of COLUMNS

    def facts(self) -> dict:
        """Return the format number and all fields except the files and the columns."""
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
        """Return an image's shard, the start and stop of its bytes there, and their CRC-32."""
        row = self._rows[file]
        number, start, length, checksum = (
            int(self.columns[name][row]) for name in ("shards", "offsets", "lengths", "checksums")
        )
        return self.shards[number], start, start + length, checksum


def index_bytes(index: Index) -> bytes:
    """Serialise an index, with a checksum of all its content."""
    arrays: dict[str, np.ndarray] = {
        name: np.ascontiguousarray(index.columns[name], dtype) for name, dtype in COLUMNS.items()
    }
    # file names cannot contain a zero byte; names that are not UTF-8 survive unchanged
    names = "\0".join(index.files).encode("utf-8", "surrogateescape")
    arrays["files"] = np.frombuffer(names, np.uint8)
    facts = index.facts()
    # one entry of metadata, because safetensors does not keep the order of several
    return save(arrays, {"facts": json.dumps({**facts, "sha256": _sha256(facts, arrays)})})


def parse_index(data: bytes, path: str) -> Index:
    """Parse the bytes of an index file; raise ValueError, naming `path` and the problem."""
    try:
        facts = checked_facts(parse_header(data[8 : 8 + header_size(data)]))
        arrays = load(data)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again") from None
    if facts.get("format", 0) > FORMAT:
        raise ValueError(
            f"{path} has format {facts['format']}, but this version of reslab reads formats up to "
            f"{FORMAT}: update reslab"
        )
    if facts.pop("sha256", "") != _sha256(facts, arrays):
        raise ValueError(f"{path} is damaged (its checksum does not match); copy it again")
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
    """Parse the header of a safetensors file; raise ValueError if it is malformed."""
    header = json.loads(data)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header


def checked_facts(header: dict) -> dict:
    """Return `Index.facts` and their checksum from a header; {} if the file is not an index."""
    return json.loads(header.get("__metadata__", {}).get("facts", "{}"))


def _sha256(facts: dict, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()
