"""Read pickles without creating any object that they name.

A pickle is a program that calls functions by name. Here, calls are only recorded; the few that
files of weights need are interpreted later, and any other name is refused. torch.load with
`weights_only=True` makes its calls, which may take any amount of memory; it does not notice changed
bits, and reads protocol 2 only.
"""

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pickletools import genops
from typing import Any, BinaryIO

import torch
from torch import Tensor

from reslab.models.convert.stored import NotWeights

DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
        torch.float8_e5m2, torch.complex64, torch.complex128, torch.int64, torch.int32,
        torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
    )
}  # fmt: skip
STORAGES = {
    "torch.DoubleStorage": torch.float64, "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16, "torch.BFloat16Storage": torch.bfloat16,
    "torch.ComplexDoubleStorage": torch.complex128, "torch.ComplexFloatStorage": torch.complex64,
    "torch.LongStorage": torch.int64, "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16, "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8, "torch.BoolStorage": torch.bool,
    "torch.QInt8Storage": torch.int8, "torch.QUInt8Storage": torch.uint8,
    "torch.QInt32Storage": torch.int32, "torch.storage.UntypedStorage": torch.uint8,
}  # fmt: skip
UNREAD = {
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta",
}
PATHS = {
    f"pathlib{module}.{kind}"
    for module in ("", "._local")
    for kind in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
}
NUMPY = {
    f"numpy.{core}.{name}"
    for core in ("core", "_core")
    for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
}
DICTS = {"collections.OrderedDict", "collections.Counter"}
KNOWN = {
    *DTYPES, *STORAGES, *UNREAD, *PATHS, *NUMPY, *DICTS, "argparse.Namespace", "_codecs.encode",
    "builtins.set", "builtins.complex", "builtins.bytearray", "numpy.dtype", "numpy.ndarray",
    "torch.Size", "torch.device", "torch.Tensor", "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout", "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
}  # fmt: skip
PLAIN = re.compile(r"[\w.]{1,99}")  # a name that needs no quotes
# operations that push their argument, and those that push a new value
ARGUMENTS = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
}  # fmt: skip
NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list,  # members of a list need no hash
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Name:
    """A function or class that a pickle names."""

    full: str


@dataclass(eq=False)
class Call:
    """A call that a pickle asks for, and the state that it gives to the result."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, eq=False)
class Storage:
    """Consecutive numbers in a file, which tensors share."""

    dtype: torch.dtype
    size: int
    read: Callable[[], Tensor]  # [size]


@dataclass
class Storages:
    """The storages of a file, by their keys."""

    read: Callable[[str, int], bytes]  # a number of bytes, of the storage with a key
    found: dict[str, Storage] = field(default_factory=dict)

    def get(self, identifier: Any) -> Storage:
        """Return the storage with the identifier that torch writes."""
        match identifier:
            case ("storage", Name(kind), str(key), str(), int(size), *view) if size >= 0:
                storage = self.found.setdefault(key, self.storage(key, STORAGES[kind], size))
            case _:
                raise ValueError("a storage has an identifier that is not torch's")
        match view:
            case [(_, int(start), int(size))]:  # part of a storage, in old files
                if start < 0 or not 0 <= size <= storage.size - start:
                    raise ValueError("a view extends past its storage")
                part = slice(start, start + size)
                # as_strided would count from the start of the whole storage
                return Storage(storage.dtype, size, lambda: storage.read()[part].clone())
        return storage

    def storage(self, key: str, dtype: torch.dtype, size: int) -> Storage:
        @cache
        def numbers() -> Tensor:
            data = bytearray(self.read(key, size * dtype.itemsize))
            return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)

        return Storage(dtype, size, numbers)


def unpickle(file: BinaryIO, storages: Storages | None = None) -> Any:
    """Return the object of the pickle at the position of `file`, with calls instead of objects."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # the values below each mark
    memo: dict[int, Any] = {}
    operations: Iterable[tuple[Any, Any, Any]] = genops(file)
    for operation, argument, _ in operations:
        match operation.name:
            case name if name in ARGUMENTS:
                stack.append(argument)
            case name if name in NEW:
                stack.append(NEW[name]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE" | "FROZENSET":
                values, stack = stack, below.pop()
                stack.append(tuple(values))
            case "APPENDS" | "ADDITEMS":
                values, stack = stack, below.pop()
                stack[-1].extend(values)
            case "APPEND":
                stack[-2].append(stack.pop())
            case "SETITEMS":
                values, stack = stack, below.pop()
                stack[-1].update(as_dict(zip(values[::2], values[1::2], strict=True)))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1].update(as_dict([(key, value)]))
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(known_name(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [known_name(".".join(stack[-2:]))]
            case "REDUCE" | "NEWOBJ":
                stack[-2:] = [recorded_call(*stack[-2:])]
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Call):
                    stack[-1].state = state
                elif not isinstance(stack[-1], dict):  # whose attributes are not needed
                    raise ValueError("its pickle sets the state of something other than a call")
            case "BINPERSID" if storages:
                stack.append(storages.get(stack.pop()))
            case "STOP":
                return stack.pop()
            case name if name not in ("PROTO", "FRAME"):
                raise ValueError(f"its pickle has the operation {name}")
    raise ValueError("its pickle does not end")


def known_name(full: str) -> Name:
    """Return a name that is known to be harmless; refuse the file because of any other."""
    full = full.replace("__builtin__.", "builtins.")
    if full not in KNOWN:
        shown = full if PLAIN.fullmatch(full) else repr(full[:99])
        raise NotWeights(
            f"is refused: opening it needs {shown}, which could run code; on a machine where you "
            "trust the file, save its state dict alone"
        )
    return Name(full)


def recorded_call(name: Any, args: Any) -> Any:
    """Record a call; if its result is a dict or bytes, return this at once."""
    match name, args:
        case Name(full), () | (list() | dict(),) if full in DICTS:
            pairs = args[0] if args else ()
            return as_dict(pairs.items() if isinstance(pairs, dict) else pairs)
        case Name("_codecs.encode"), (str(text), "latin1" | "latin-1"):
            return text.encode("latin1")
        case Name(full), tuple():
            return Call(full, args)
    raise ValueError("its pickle calls something other than a name")


def as_dict(pairs: Iterable[Any]) -> dict[Hashable, Any]:
    """Return a dict whose keys are simple: the hash of nested tuples could take for ever."""
    items = {}
    for key, value in pairs:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(part is None or isinstance(part, str | int | float | bytes) for part in parts):
            raise ValueError("its pickle has a dict with keys that are neither text nor numbers")
        items[key] = value
    return items
