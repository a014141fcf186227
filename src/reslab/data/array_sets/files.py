"""Find the arrays in .npy and .npz files, and read them without running any code in them."""

import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from reslab.data.class_folders import holds_images
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.location import ARRAY_SUFFIXES
from reslab.data.part_names import part_of_name
from reslab.errors import os_reason
from reslab.runtime.files import open_regular
from reslab.runtime.memory import must_fit

KINDS = "buifUS"  # of numpy's types: numbers and text; all others need a pickle or have fields
CHUNK = 2**24  # bytes decompressed at a time
VERSIONS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, described by its header alone."""

    file: Path
    member: str  # of an .npz file; "" for an .npy file
    path: tuple[str, ...]  # names that its meaning is read from: ("train", "images"), ("x_train",)
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool  # whether the first index varies fastest
    start: int  # bytes before the data

    def __str__(self) -> str:
        return f"{self.path[-1]} in {self.file}" if self.member else str(self.file)

    @property
    def name(self) -> str:
        """The array's name in the set, which begins the names of its images."""
        return "/".join(self.path)

    @property
    def row_bytes(self) -> int:
        """The size of an entry along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def described(self) -> str:
        """The name, type and shape, for messages that list arrays."""
        return f"{self.name} {self.dtype} {list(self.shape)}"

    def must_be_readable(self) -> None:
        """Raise ValueError for an array of Python objects, and for types with fields and dates."""
        if self.dtype.hasobject:
            raise ValueError(
                f"{self} holds Python objects, a pickle that could run code and is not read: save "
                "images of one size with np.stack, labels with .astype(str) or .astype(int)"
            )
        if self.dtype.kind not in KINDS or not self.dtype.itemsize:
            raise ValueError(f"{self} has the type {self.dtype}, neither numbers nor text")

    def load(self) -> np.ndarray:
        """Read the array into memory; raise ValueError if it is damaged or does not fit."""
        self.must_be_readable()
        size = math.prod(self.shape) * self.dtype.itemsize
        must_fit(size, str(self), "save it as an .npy file, which is read image by image")
        data = bytearray(size)
        with reading(self.file), _open(self.file, self.member) as stream:
            stream.seek(self.start)
            view = memoryview(data)
            while view:
                piece = stream.read(min(CHUNK, len(view)))
                if not piece:
                    raise ValueError(f"{self.path[-1]} is truncated")
                view[: len(piece)] = piece
                view = view[len(piece) :]
            stream.read(1)  # compares the checksum of a member
        order = "F" if self.fortran else "C"
        return np.frombuffer(data, self.dtype).reshape(self.shape, order=order)

    def read_rows(self, first: int, last: int) -> np.ndarray:
        """Read the entries from `first` to `last`, exclusive, of an .npy file in C order.

        Raise OSError if that fails.
        """
        with open_regular(self.file) as stream:
            stream.seek(self.start + first * self.row_bytes)
            data = stream.read((last - first) * self.row_bytes)
        if len(data) < (last - first) * self.row_bytes:
            raise OSError("the file is truncated")
        return np.frombuffer(data, self.dtype).reshape(last - first, *self.shape[1:])


def array_files(place: Path) -> list[Path]:
    """Return the .npy and .npz files of a set of arrays; none if `place` is something else.

    `place` is one such file, or a folder with some, there or in subfolders named as parts. A folder
    with image files is not a set of arrays.
    """
    if place.is_file():
        return [place] if _is_array(place.name) else []
    found = _array_files_in(place, parts=True)
    return found if found and not holds_images(place) else []


def _array_files_in(folder: Path, *, parts: bool) -> list[Path]:
    """Return the array files in a folder, sorted, and with `parts` those in its parts.

    The list is empty as soon as an image is found: other folders are not read to the end.
    """
    found, inner = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(IMAGE_SUFFIXES):
                    return []
                if _is_array(entry.name) and entry.is_file():
                    found.append(Path(entry.path))
                elif parts and part_of_name(entry.name) and entry.is_dir():
                    inner.append(Path(entry.path))
                elif not parts and not entry.name.startswith(".") and entry.is_dir():
                    return []  # a part with class folders
    except OSError:  # reported when the folder is opened
        return []
    return sorted(found) + [
        file for part in sorted(inner) for file in _array_files_in(part, parts=False)
    ]


def _is_array(name: str) -> bool:
    return name.lower().endswith(ARRAY_SUFFIXES) and not name.startswith(".")


def stored_arrays(place: Path, files: list[Path]) -> tuple[list[StoredArray], list[str]]:
    """Return the arrays in `files`, and the names of other members in .npz files."""
    arrays, others = [], []
    for file in files:
        inside = file.relative_to(place).with_suffix("").parts if place.is_dir() else ()
        with reading(file):
            if file.suffix.lower() == ".npy":
                with _open(file, "") as stream:
                    arrays.append(_describe(stream, file, "", inside or (file.stem,)))
                continue
            alone = len(files) == 1
            with open_regular(file) as whole, zipfile.ZipFile(whole) as archive:
                for info in archive.infolist():
                    key = info.filename.removesuffix(".npy")
                    if key == info.filename:
                        others.append(f"{file}: {info.filename}")
                        continue
                    with archive.open(info) as stream:
                        path = (key,) if alone else (*inside, key)
                        arrays.append(_describe(stream, file, info.filename, path, info.file_size))
    return arrays, others


def _describe(
    stream: IO[bytes], file: Path, member: str, path: tuple[str, ...], size: int | None = None
) -> StoredArray:
    """Read an array's header; `size` is that of the member, if not that of the file."""
    name = path[-1] if member else file.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about files written by Python 2
        version = npy.read_magic(stream)
        if version not in VERSIONS:
            raise ValueError(f"{name} has the format {version}, which is not read")
        shape, fortran, dtype = VERSIONS[version](stream)
    start = stream.seek(0, os.SEEK_CUR)
    actual = os.stat(file).st_size if size is None else size
    expected = start + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or (actual != expected and not dtype.hasobject):
        raise ValueError(
            f"{name} has {actual:,} bytes instead of {expected:,} for {dtype} {list(shape)}: it is "
            "truncated or damaged"
        )
    return StoredArray(file, member, path, shape, dtype, fortran and len(shape) > 1, start)


@contextmanager
def _open(file: Path, member: str) -> Iterator[IO[bytes]]:
    with open_regular(file) as stream:
        if not member:
            yield stream
            return
        with zipfile.ZipFile(stream) as archive, archive.open(member) as inside:
            yield inside


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn every error of reading a file into a ValueError that names it.

    Damaged archives raise errors of many types.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(f"{file}: {os_reason(error)}") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file}: {reason[:300]}") from None
