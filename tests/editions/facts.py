"""Reduce a run or a command's JSON to what is compared, without clocks, paths and versions."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# keys whose values depend on a clock, a version or how the command was started
CLOCKS = {
    "seconds", "images_per_second", "pictures_per_second", "hours", "memory", "limit", "reslab",
    "commit", "command", "python", "system", "torch",
}  # fmt: skip
# keys of prose, whose wording may improve: only the numbers in it are compared
PROSE = {"does", "fix", "note", "error", "text"}
# the first edition's word for an image, in the kind of a finding and for an image without a file
RENAMED = {"picture": "image", "pictures": "images", "a picture": "an image"}
# fields of a configuration, an import and an environment that older editions do not have, with the
# values that mean the same as without them
ADDED = {
    "norm": {"kind": "batch"}, "stochastic_depth": 0.0, "dropout": 0.0, "left_out": [],
    "engine": "torch",
}  # fmt: skip
# files of a run folder that older editions do not write
NEW_FILES = {"data.safetensors"}
# with five classes or fewer, older editions had a top-5 error of 0; it is null now
NULL_TOP5 = {"top5_error", "top5_interval"}
# results by class that older editions do not have
NEW_BY_CLASS = {"precision", "recall", "f1", "macro"}
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def facts(value: Any, places: dict[str, str], key: str = "") -> Any:
    """Remove clocks from a JSON value, reduce prose to its numbers, and name paths by `places`."""
    if isinstance(value, dict):
        return {
            name: facts(item, places, name) for name, item in sorted(value.items())
            if name not in CLOCKS and not is_added(name, item)
        }  # fmt: skip
    if isinstance(value, list):
        return [facts(item, places, key) for item in value]
    if not isinstance(value, str):
        return value
    for path, name in places.items():
        value = value.replace(path, name)
    if key in ("kind", "file"):
        return re.sub(r"\b(a picture|pictures?)\b", lambda match: RENAMED[match[0]], value)
    return NUMBER.findall(value) if key in PROSE else value


def is_added(name: str, value: Any) -> bool:
    """Return whether a field is new, or has another form in older editions for the same content."""
    if name in NULL_TOP5:
        return value is None or value == 0 or (isinstance(value, list) and value[0] == 0)
    if name in NEW_BY_CLASS:
        return not isinstance(value, str)  # a recipe's precision is a string
    return name in ADDED and value == ADDED[name]


def shape(value: Any) -> Any:
    """Return the keys and types of a JSON value; of a list, each distinct shape of its items."""
    if isinstance(value, dict):
        return {
            name: shape(item) for name, item in sorted(value.items()) if not is_added(name, item)
        }
    if isinstance(value, list):
        shapes = {json.dumps(shape(item), sort_keys=True) for item in value}
        return [json.loads(item) for item in sorted(shapes)]
    return "null" if value is None else type(value).__name__


def tensors_in(file: Path) -> dict[str, str]:
    """Return type, shape and SHA-256 of each tensor in a safetensors file, by name."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    return {
        name: f"{entry['dtype']} {entry['shape']} {digest(body[slice(*entry['data_offsets'])])}"
        for name, entry in sorted(header.items())
    }


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def files_in(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder, by relative path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): digest(file.read_bytes()) for file in files}


def run_facts(folder: Path, places: dict[str, str]) -> dict[str, Any]:
    """Collect the comparable content of a run folder: JSON, log, tensors and file names."""
    content = {
        file.name: facts(json.loads(file.read_bytes()), places)
        for file in sorted(folder.glob("*.json"))
    }
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    content["metrics.jsonl"] = [facts(json.loads(line), places) for line in lines]
    content |= {
        file.name: tensors_in(file)
        for file in sorted(folder.glob("*.safetensors"))
        if file.name not in NEW_FILES
    }
    content["files"] = sorted(
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".") and file.name not in NEW_FILES
    )
    for step in sorted(folder.glob("step*")):
        content[step.name] = run_facts(step, places)
    return content


def differences(first: Any, second: Any, place: str = "") -> Iterator[str]:
    """Yield a line `place: first -> second` for each difference of two values."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            inner = f"{place}.{key}" if place else key
            yield from differences(first.get(key, "absent"), second.get(key, "absent"), inner)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (before, after) in enumerate(zip(first, second, strict=True)):
            yield from differences(before, after, f"{place}[{index}]")
    elif json.dumps(first) != json.dumps(second):  # as text, where NaN equals NaN
        yield f"{place}: {short(first)} -> {short(second)}"


def short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 70 else f"{text[:67]}..."
