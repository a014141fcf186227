"""Interpret files of torch and pickles: tensors, numpy's arrays and numbers, plain facts."""

import io
import math
import re
import zipfile
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from reslab.models.convert.pickles import (
    DTYPES,
    PATHS,
    UNREAD,
    Call,
    Storage,
    Storages,
    unpickle,
)
from reslab.models.convert.stored import NotWeights, Stored, from_array

MAGIC = 0x1950A86A20F9469CFC6C  # first in a file of torch before 1.6
FORMAT = 1001  # second
BIG_ENDIAN = "was written on a big-endian machine: save it again with torch on this one"
Order = Literal["C", "F"]  # of an array in memory
NUMBERS = {"?", "b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}


def read_archive(archive: zipfile.ZipFile, root: str) -> Any:
    """Return what torch saved in an archive, below the folder `root` in it."""
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise NotWeights(BIG_ENDIAN)

    def read(key: str, size: int) -> bytes:
        data = archive.read(f"{root}data/{key}")
        if len(data) != size:
            raise ValueError(f"its storage {key} has {len(data)} bytes instead of {size}")
        return data

    return unpickle(io.BytesIO(archive.read(f"{root}data.pkl")), Storages(read))


def read_pickle(opened: BinaryIO) -> Any:
    """Return the content of a plain pickle, or of a file that torch wrote before 1.6."""
    file = io.BytesIO(opened.read())
    first = unpickle(file)
    if first != MAGIC:
        return first
    starts = dict[str, int]()
    storages = Storages(lambda key, size: bytes(file.getbuffer()[starts[key] : starts[key] + size]))
    form, system, content = unpickle(file), unpickle(file), unpickle(file, storages)
    if not isinstance(system, dict) or not system.get("little_endian") or form != FORMAT:
        raise NotWeights(BIG_ENDIAN)
    for key in unpickle(file):
        storage = storages.found[key]
        if int.from_bytes(file.read(8), "little") != storage.size:
            raise ValueError(f"its storage {key} has another length")
        starts[key] = file.seek(0, io.SEEK_CUR)
        if file.seek(storage.size * storage.dtype.itemsize, io.SEEK_CUR) > len(file.getbuffer()):
            raise ValueError(f"it ends within its storage {key}")
    if missing := storages.found.keys() - starts.keys():
        raise ValueError(f"its storage {min(missing)} is missing")
    return content


def meaning(call: Call) -> Any:
    """Return the tensor or fact that a call stands for, or None if it is another object.

    Arguments are not checked: if they are not those of torch or numpy, any error may be raised.
    """
    args = call.args
    match call.name.rpartition(".")[2]:
        case "_rebuild_tensor" | "_rebuild_tensor_v2":
            return stored(args[0], args[0].dtype, *args[1:4])
        case "_rebuild_tensor_v3":
            return stored(args[0], DTYPES[args[6].full], *args[1:4])
        case "_rebuild_from_type_v2":
            return meaning(Call(args[0].full, args[2]))
        case (
            "_rebuild_parameter" | "_rebuild_parameter_with_state" | "Parameter"
            | "_rebuild_device_tensor_from_numpy" | "_rebuild_device_tensor_from_cpu_tensor"
        ):  # fmt: skip
            return meaning(args[0]) if isinstance(args[0], Call) else args[0]
        case "scalar":
            numbers = array(args[1], args[0], (1,))
            return None if numbers is None else numbers.tolist()[0]
        case "_reconstruct":
            _, shape, dtype, fortran, data = call.state
            return stored_array(data, dtype, shape, "F" if fortran else "C")
        case "_frombuffer":
            return stored_array(*args)
        case "set" | "Size":
            return list(args[0])
        case "Namespace":
            return call.state
    if call.name in PATHS:
        return "/".join(map(str, args))
    if call.name in UNREAD:
        return Stored(torch.float32, (), lambda: torch.empty(()), UNREAD[call.name])
    return None


def stored(storage: Storage, dtype: torch.dtype, start: Any, shape: Any, stride: Any) -> Stored:
    """Return a tensor within a storage; raise ValueError if it extends past the end."""
    shape, stride = as_sizes(shape), as_sizes(stride)
    size = storage.size * storage.dtype.itemsize // dtype.itemsize
    last = sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if not isinstance(start, int) or start < 0 or (math.prod(shape) and start + last >= size):
        raise ValueError("a tensor extends past its storage")

    def read() -> Tensor:
        return storage.read().view(dtype).as_strided(shape, stride, start)

    return Stored(dtype, shape, read)


def as_sizes(sizes: Any) -> tuple[int, ...]:
    """Return a shape or strides; raise ValueError unless they are whole numbers from 0."""
    if isinstance(sizes, tuple) and all(isinstance(n, int) and 0 <= n < 2**63 for n in sizes):
        return sizes
    raise ValueError(f"the shape {str(sizes)[:40]}")


def stored_array(data: Any, dtype: Call, shape: tuple[Any, ...], order: Order) -> Any:
    """Return an array as a tensor, or as a list if it holds text or objects."""
    if isinstance(data, list):
        return data
    numbers = array(data, dtype, shape, order)
    return None if numbers is None else from_array(numbers)


def array(data: Any, dtype: Call, shape: tuple[Any, ...], order: Order = "C") -> np.ndarray | None:
    """Return an array, or None if it holds neither numbers nor text.

    Only a type's code and byte order are taken from the file: with made-up fields and flags, numpy
    would follow numbers as addresses.
    """
    match dtype.args, dtype.state:
        case (str(code), *_), (_, "<" | ">" | "|" | "=" as sign, None, None, None, *_):
            if code not in NUMBERS and not re.fullmatch(r"[SU][1-9]\d{0,5}", code):
                return None
            kind = np.dtype(f"{sign}{code}")
            content = data.encode("latin1") if isinstance(data, str) else data
            return np.frombuffer(content, kind).reshape(as_sizes(shape), order=order)
    return None
