"""The archive of an exported torch program, .pt2: written without traces, read without trust.

torch's own loader runs code that a file brings along: pickles, expressions that are evaluated as
Python, operators by any name, compiled libraries. Here a file is opened only if it has none.
"""

import ast
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from reslab.runtime.json_text import parse_json

Records = dict[str, bytes]  # name in the archive, without its root folder -> content
Json = Any

PROGRAM = "models/model.json"
EXTRA = "extra/"
PICKLES = ("data/sample_inputs/model.pt",)
WEIGHTS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
RECORD = re.compile(  # everything else makes torch's loader run code, or is unknown
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|extra/[\w.-]+|data/weights/weight_\d+|data/constants/tensor_\d+"
    + "".join(f"|{re.escape(name)}" for name in (PROGRAM, *PICKLES, *WEIGHTS))
)
# operators that only compute; of torch's own, these two read and write files
OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!(from_file|save)\b)\w+\.\w+|torch\.sym_(min|max|not|float)"
)
PYTHON_OPERATORS = {
    "_operator.add", "_operator.sub", "_operator.mul", "_operator.floordiv", "_operator.mod",
    "_operator.truediv", "_operator.neg", "_operator.eq", "_operator.ne", "_operator.lt",
    "_operator.le", "_operator.gt", "_operator.ge", "_operator.and_", "_operator.or_",
    "_operator.getitem",
}  # fmt: skip
# functions in expressions of sizes, as sympy writes them
FUNCTIONS = {
    "Integer", "Float", "Rational", "Symbol", "Add", "Mul", "Pow", "Min", "Max", "Abs", "Mod",
    "FloorDiv", "PythonMod", "ModularIndexing", "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt",
    "RoundToInt", "TruncToInt", "ToFloat", "IntTrueDiv", "FloatTrueDiv", "PowByNatural", "Identity",
    "Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan",
    "And", "Or", "Not",
}  # fmt: skip
NAMES = {"true", "false", "oo", "int_oo"}
CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
OBJECTS = {"as_custom_obj", "as_operator", "as_graph"}  # arguments that are more than numbers


def read_archive(source: Path | bytes) -> Records:
    """Read the records of a .pt2 file, given its path or content, if loading them runs no code.

    Every pickle inside has then been read with `weights_only=True`. Otherwise raise ValueError,
    with the reason.
    """
    file = "the program" if isinstance(source, bytes) else source
    try:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        with zipfile.ZipFile(opened) as archive:
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise refused(file, "two of its records have one name")
            # torch compresses nothing, and a few bytes could expand to more than the memory holds
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError(f"{file} is not opened: it is compressed; export it again")
            contents = {name.partition("/")[2]: archive.read(name) for name in names}
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:
        raise ValueError(f"{file} is not an exported program, or is damaged ({error})") from None
    if PROGRAM not in contents or len(contents) < len(names):
        raise ValueError(f"{file} is not an exported program of torch: it has no {PROGRAM}")
    for reason in reasons_against(contents):
        raise refused(file, reason)
    return contents


def refused(file: str | Path, reason: str) -> ValueError:
    return ValueError(f"{file} is not opened: {reason}, which could run code; export it again")


def reasons_against(records: Records) -> Iterator[str]:
    """Yield why torch must not load these records."""
    for name in records:
        if not RECORD.fullmatch(name):
            yield f"it contains {name!r}"
    try:
        program, *configs = (parse_json(records.get(name, b"{}")) for name in (PROGRAM, *WEIGHTS))
    except ValueError as error:
        yield f"its description is not JSON ({error})"
        return
    yield from reasons_against_program(program)
    for config in configs:
        yield from reasons_against_program(config)
    for name in PICKLES:
        yield from reasons_against_pickle(name, records.get(name))


def reasons_against_pickle(name: str, content: bytes | None) -> Iterator[str]:
    if not content:
        return
    try:
        with warnings.catch_warnings(action="ignore"):
            torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # its message says how to load the pickle all the same
        yield f"{name} is a pickle of more than tensors"


def reasons_against_program(part: Json) -> Iterator[str]:
    """Yield why a part of the description of a program, or of its weights, must not be loaded."""
    if isinstance(part, list):
        for item in part:
            yield from reasons_against_program(item)
    elif isinstance(part, Mapping):
        for key, value in part.items():
            if key == "use_pickle" and value is not False:
                yield "its weights are pickled"
            elif key == "guards_code" and value:
                yield "its guards are Python"
            elif key == "expr_str" and not is_arithmetic(value):
                yield f"a size is the expression {value!r}"
            elif key == "target" and not is_known_operator(value):
                yield f"it calls {value!r}"
            elif key in ("in_spec", "out_spec") and not is_plain(value):
                yield f"an argument has the type {value!r}"
            elif key in OBJECTS:
                yield f"an argument is {key}"
            else:
                yield from reasons_against_program(value)


def is_known_operator(target: Json) -> bool:
    """Return whether an operator only computes with tensors and numbers."""
    if not isinstance(target, str):
        return isinstance(target, Mapping)  # a part of the description, not a name
    return target in PYTHON_OPERATORS or bool(OPERATOR.fullmatch(target))


def is_arithmetic(text: Json) -> bool:
    """Return whether an expression has only numbers, symbols and known functions."""
    try:
        return is_number(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError):
        return False


def is_number(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=int() | float()):
            return True
        case ast.Name(id=name):
            return name in NAMES
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return is_number(operand)
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))]):
            return name.isidentifier() and all(is_number(word.value) for word in node.keywords)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return name in FUNCTIONS and all(map(is_number, arguments))
    return False


def is_plain(spec: Json) -> bool:
    """Return whether the arguments of a program, as torch describes them, are plain containers."""
    try:
        return spec == "" or all(map(is_container, json.loads(spec)[1:]))
    except (ValueError, TypeError, RecursionError):
        return False


def is_container(part: Json) -> bool:
    return (
        part["type"] in CONTAINERS
        and part["context"] in (None, "null", "[]")
        and all(map(is_container, part["children_spec"]))
    )


def without_traces(records: Records) -> Records:
    """Remove from a program the lines of Python that it was traced from, and its guards.

    They name files of the machine that exported it, and torch would evaluate the guards.
    """
    program = json.loads(records[PROGRAM])
    program["guards_code"] = []
    for node in program["graph_module"]["graph"]["nodes"]:
        node["metadata"].pop("stack_trace", None)
    return records | {PROGRAM: json.dumps(program).encode()}


def split_archive(content: bytes) -> Records:
    """Return the records of an archive that this process wrote."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def archive_bytes(records: Records) -> bytes:
    """Return the records as an archive; equal records give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(f"model/{name}"), content)
    return buffer.getvalue()
