"""The index of packed images: which images are in the shards, their positions and checksums."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from safetensors import SafetensorError
from safetensors.numpy import load, save

from reslab.runtime.files import MAX_BYTES
from reslab.runtime.json_text import parse_json

INDEX = "index.safetensors"
FORMAT = 1
REPACK = "pack the images again, or copy the folder again"
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
    columns: dict[str, np.ndarray]  # with the keys of COLUMNS; no checksums of foreign shards

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

    def locate(self, file: str) -> tuple[Shard, int, int, int | None]:
        """Return an image's shard, the start and stop of its bytes there, and their CRC-32.

        Shards of other programs have no checksums.
        """
        row = self._rows[file]
        number, start, length = (
            int(self.columns[name][row]) for name in ("shards", "offsets", "lengths")
        )
        checksums = self.columns.get("checksums")
        checksum = None if checksums is None else int(checksums[row])
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
    """Parse the bytes of an index file; raise ValueError, naming `path` and the problem.

    Its checksum covers the facts and the bytes of the columns, and the columns can have one type
    and one shape only, so nothing in an index can change unnoticed. A forged index has a valid
    checksum: names that lead out of its folder and positions outside a shard are refused.
    """
    try:
        facts = checked_facts(parse_header(data[8 : 8 + header_size(data)]))
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a type numpy lacks
        raise ValueError(f"{path} is damaged ({error}); copy it again") from None
    _check_format(facts, path)
    if facts.pop("sha256", "") != _sha256(facts, arrays):
        raise ValueError(f"{path} is damaged (its checksum does not match); copy it again")
    try:
        checked = _Facts.model_validate(facts)
        files = _check_columns(arrays, checked)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} cannot be used ({where}: {first['msg']}); {REPACK}") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be used ({error}); {REPACK}") from None
    return Index(
        checked.name,
        tuple(checked.classes),
        tuple(checked.ids),
        checked.shorter_side,
        checked.quality,
        tuple(Shard(shard.name, shard.size, shard.sha256) for shard in checked.shards),
        files,
        arrays,
    )


class _ShardFacts(BaseModel):
    """A shard as an index describes it."""

    model_config = ConfigDict(strict=True)
    name: str
    size: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @field_validator("name")
    @classmethod
    def _in_the_folder(cls, name: str) -> str:
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise ValueError(f"{name!r} is not the name of a file in the folder")
        return name


class _Facts(BaseModel):
    """The facts of an index, except its checksum."""

    model_config = ConfigDict(strict=True)
    name: str
    classes: Annotated[list[str], Field(min_length=1)]
    ids: Annotated[list[str], Field(min_length=1)]
    shorter_side: PositiveInt | None
    quality: PositiveInt | None
    shards: Annotated[list[_ShardFacts], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> "_Facts":
        if not len(self.classes) == len(self.ids) == len(set(self.ids)):
            raise ValueError(
                "the classes and their ids must be equally many, and all ids different"
            )
        if len({shard.name for shard in self.shards}) < len(self.shards):
            raise ValueError("two shards have the same name")
        return self


def _check_format(facts: dict, path: str) -> None:
    """Raise ValueError unless facts have the number of a format that is read."""
    number = facts.get("format")
    if type(number) is not int or number < 1:
        raise ValueError(f"{path} is not an index of packed images, or damaged; copy it again")
    if number > FORMAT:
        raise ValueError(
            f"{path} has format {number}, but this version of reslab reads formats up to "
            f"{FORMAT}: update reslab"
        )


def _check_columns(arrays: dict[str, np.ndarray], facts: _Facts) -> list[str]:
    """Return the names of the files, removed from `arrays`; raise ValueError for wrong columns."""
    expected = {name: np.dtype(dtype) for name, dtype in (COLUMNS | {"files": np.uint8}).items()}
    if arrays.keys() != expected.keys():
        raise ValueError(f"its columns are {', '.join(sorted(arrays))}")
    for name, column in arrays.items():
        if column.ndim != 1 or column.dtype != expected[name]:
            shape = list(column.shape)
            raise ValueError(f"column {name!r} has type {column.dtype} and shape {shape}")
    files = arrays.pop("files").tobytes().decode("utf-8", "surrogateescape").split("\0")
    for name, column in arrays.items():
        if len(column) != len(files):
            raise ValueError(f"column {name!r} has {len(column):,} rows for {len(files):,} files")
    _check_range("labels", arrays["labels"], 0, len(facts.classes) - 1)
    _check_range("shards", arrays["shards"], 0, len(facts.shards) - 1)
    sizes = np.array([shard.size for shard in facts.shards])[arrays["shards"]]
    _check_range("lengths", arrays["lengths"], 1, np.minimum(sizes, MAX_BYTES))
    _check_range("offsets", arrays["offsets"], 0, sizes - arrays["lengths"])
    return files


def _check_range(name: str, column: np.ndarray, least: int, most: int | np.ndarray) -> None:
    """Raise ValueError, with the first wrong value, unless a column is from `least` to `most`."""
    wrong = np.flatnonzero((column < least) | (column > most))
    if len(wrong):
        raise ValueError(f"column {name!r} has {column[wrong[0]]} in row {wrong[0]}")


def header_size(data: bytes) -> int:
    """Return the length of a safetensors header, from the file's first eight bytes."""
    return int.from_bytes(data[:8], "little")


def parse_header(data: bytes) -> dict:
    """Parse the header of a safetensors file; raise ValueError if it is malformed."""
    return _parse_object(data, "the header's entries")


def checked_facts(header: dict) -> dict:
    """Return `Index.facts` and their checksum from a header; {} if the file is not an index.

    Raise ValueError if they are malformed.
    """
    metadata = header.get("__metadata__")
    facts = metadata.get("facts") if isinstance(metadata, dict) else None
    return _parse_object(facts, "its record of facts") if isinstance(facts, str) else {}


def _parse_object(text: str | bytes, what: str) -> dict:
    content = parse_json(text)
    if not isinstance(content, dict):
        raise ValueError(f"{what} is not a JSON object")
    return content


def _sha256(facts: dict, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()
