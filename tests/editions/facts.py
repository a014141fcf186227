"""Reduce a run or a command's JSON to what is compared: no clock, path or version enters it."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# what a clock, a version or the way in which the command was started decides
CLOCKS = {
    "seconds", "images_per_second", "pictures_per_second", "hours", "memory", "limit", "reslab",
    "commit", "command", "python", "system", "torch",
}  # fmt: skip
# words for people, which may be worded better: their numbers are compared
PROSE = {"does", "fix", "note", "error", "text"}
# the first edition's word for an image, in the kind of a finding and for an image without a file
RENAMED = {"picture": "image", "pictures": "images", "a picture": "an image"}
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def facts(value: Any, places: dict[str, str], key: str = "") -> Any:
    """A JSON value without clocks, prose as its numbers, and `places` (path -> name) named."""
    if isinstance(value, dict):
        return {
            name: facts(it, places, name) for name, it in sorted(value.items())
            if name not in CLOCKS
        }  # fmt: skip
    if isinstance(value, list):
        return [facts(it, places, key) for it in value]
    if not isinstance(value, str):
        return value
    for path, name in places.items():
        value = value.replace(path, name)
    if key in ("kind", "file"):
        return re.sub(r"\b(a picture|pictures?)\b", lambda match: RENAMED[match[0]], value)
    return NUMBER.findall(value) if key in PROSE else value


def shape(value: Any) -> Any:
    """The keys and types of a JSON value; of a list, each shape that its items have, once."""
    if isinstance(value, dict):
        return {name: shape(it) for name, it in sorted(value.items())}
    if isinstance(value, list):
        shapes = {json.dumps(shape(it), sort_keys=True) for it in value}
        return [json.loads(it) for it in sorted(shapes)]
    return "null" if value is None else type(value).__name__


def tensors_in(file: Path) -> dict[str, str]:
    """Type, shape and SHA-256 of each tensor of a safetensors file, by its name."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    return {
        name: f"{it['dtype']} {it['shape']} {digest(body[slice(*it['data_offsets'])])}"
        for name, it in sorted(header.items())
    }


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def files_in(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): digest(file.read_bytes()) for file in files}


def run_facts(folder: Path, places: dict[str, str]) -> dict[str, Any]:
    """Collect from a run folder what was trained and what came out."""
    found = {
        file.name: facts(json.loads(file.read_bytes()), places)
        for file in sorted(folder.glob("*.json"))
    }
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found["metrics.jsonl"] = [facts(json.loads(line), places) for line in lines]
    found |= {file.name: tensors_in(file) for file in sorted(folder.glob("*.safetensors"))}
    found["files"] = sorted(
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".")
    )
    for step in sorted(folder.glob("step*")):
        found[step.name] = run_facts(step, places)
    return found


def differences(first: Any, second: Any, place: str = "") -> Iterator[str]:
    """Where two values differ: `place: first -> second`."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            inner = f"{place}.{key}" if place else key
            yield from differences(first.get(key, "absent"), second.get(key, "absent"), inner)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from differences(one, other, f"{place}[{index}]")
    elif json.dumps(first) != json.dumps(second):  # as text, where NaN equals NaN
        yield f"{place}: {short(first)} -> {short(second)}"


def short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 70 else f"{text[:67]}..."
