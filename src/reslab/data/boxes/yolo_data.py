"""Read the file that describes a YOLO data set: YAML, or darknet's `obj.data`.

It names the classes, and the images of each part: folders, or text files that list images.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from reslab.data.boxes.image_files import ImageIndex
from reslab.data.class_folders import is_system_folder
from reslab.data.part_names import Part
from reslab.runtime.files import read_regular, read_text

SUFFIXES = (".yaml", ".yml", ".data")
PARTS: dict[str, Part] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
EMPTY = ("", "null", "Null", "NULL", "~")  # YAML's words for no value
MAX_DEPTH = 3  # levels of folders below the opened one in which a data file is looked for
LARGEST = 2**20  # bytes of a data file


@dataclass(frozen=True)
class DataFile:
    """What a data file says."""

    path: Path
    names: tuple[str, ...]  # of the classes
    entries: dict[str, list[str]]  # by part, as in PARTS: folders and lists, as written
    base: str = ""  # of the entries, as written
    keypoints: int = 0  # numbers in a row after its box


def find_data_file(folder: Path) -> DataFile | None:
    """Return the data file nearest to a folder; None if there is none.

    Raise ValueError if it is malformed, or if several describe the data set differently.
    """
    found: list[tuple[int, Path]] = []
    for place, folders, files in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        shown = [name for name in folders if name[0] != "." and not is_system_folder(name)]
        folders[:] = shown if depth < MAX_DEPTH else []
        found += [(depth, Path(place, name)) for name in files if name.lower().endswith(SUFFIXES)]
    candidates: list[DataFile] = []
    for _, path in sorted(found):
        if candidates and len(path.parts) > len(candidates[0].path.parts):
            break
        if data_file := _read(folder, path):
            candidates.append(data_file)
    if not candidates:
        return None
    first, *others = candidates
    for other in others:
        if (other.names, other.path.parent) != (first.names, first.path.parent):
            one, two = (file.path.relative_to(folder).as_posix() for file in (first, other))
            raise ValueError(
                f"{folder} has {one} and {two}, which describe different data sets: give the "
                "folder of one, or keep only one data file"
            )
    return next((file for file in candidates if file.path.stem in ("data", "dataset")), first)


def _read(folder: Path, path: Path) -> DataFile | None:
    if path.suffix.lower() == ".data":
        return _from_darknet(folder, path)
    content = _parse_yaml(path)
    return _from_yaml(folder, path, content) if _describes(content) else None


def _describes(content: Any) -> bool:
    if not isinstance(content, dict):
        return False
    return "names" in content and bool({*PARTS, "path"} & content.keys())


def _parse_yaml(path: Path) -> Any:
    """Return the content of a YAML file, all values as text; None if it is not text.

    Otherwise YAML would read the class names `no` and `001` as False and 1. Raise ValueError if
    the file is malformed and was meant to describe a data set.
    """
    import yaml

    try:
        data = read_regular(path, LARGEST)
    except OSError:
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"names" in data.replace(b"\0", b""):  # in UTF-16, every other byte is zero
            raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from None
        return None
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)
    except RecursionError:
        return None
    except yaml.YAMLError as error:
        if "names" not in text:
            return None
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = f":{mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: malformed YAML") from None


def _from_yaml(folder: Path, path: Path, content: dict[str, Any]) -> DataFile:
    names = content["names"]
    if isinstance(names, str) and (names_file := existing(names, (path.parent, folder))):
        names = list(read_lines(names_file))
    shape = content.get("kpt_shape")
    entries = {key: _texts(content.get(key)) for key in PARTS}
    return DataFile(
        path,
        _names(names, content.get("nc"), path),
        entries,
        str(content.get("path") or ""),
        _product(shape) if isinstance(shape, list) else 0,
    )


def _texts(entry: Any) -> list[str]:
    texts = entry if isinstance(entry, list) else [entry]
    return [text for text in texts if isinstance(text, str) and text not in EMPTY]


def _product(shape: Sequence[Any]) -> int:
    product = 1
    for number in shape:
        product *= int(number) if str(number).isdecimal() and len(str(number)) < 6 else 0
    return product


def _names(names: Any, count: Any, path: Path) -> tuple[str, ...]:
    """Return the names of the classes in a YAML file, a list or a dictionary by number."""
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        if sorted(names) != sorted(numbers):
            raise ValueError(f"{path}: names must have the numbers 0 to {len(names) - 1}")
        names = [names[number] for number in numbers]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{path}: names must be a list of the classes, or 0: NAME and so on")
    if isinstance(count, str) and count.isdecimal() and count.lstrip("0") != str(len(names)):
        raise ValueError(f"{path}: nc is {count[:20]}, but names has {len(names)} classes")
    return tuple(name.strip() for name in names)


def _from_darknet(folder: Path, path: Path) -> DataFile | None:
    """Read a file of `key = value` lines; return None if it names no file of classes."""
    try:
        lines = read_lines(path)
    except ValueError:  # binary files may have this suffix
        return None
    pairs = (line.partition("=") for line in lines if "=" in line)
    values = {key.strip(): value.strip() for key, _, value in pairs}
    if "names" not in values:
        return None
    names_file = existing(values["names"], (path.parent, folder))
    if names_file is None or not names_file.is_file():
        raise ValueError(f"{path}: names = {values['names']} does not exist")
    return DataFile(path, read_lines(names_file), {key: _texts(values.get(key)) for key in PARTS})


def read_lines(path: Path) -> tuple[str, ...]:
    """Return the lines of a text file without surrounding spaces, except blank ones at its end."""
    lines = read_text(path).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)


def existing(written: str, bases: Sequence[Path]) -> Path | None:
    """Return the longest end of a path that exists in one of the folders.

    The path may have been written on another machine.
    """
    pure = PurePosixPath(written.replace("\\", "/"))
    parts = [part for part in pure.parts if part not in ("/", "..", ".")]
    for start in range(len(parts)):
        for base in dict.fromkeys(bases):
            if found := _in_any_case(base, parts[start:]):
                return found
    return None


def _in_any_case(base: Path, parts: Sequence[str]) -> Path | None:
    """Return a path below a folder; capitals make no difference."""
    try:
        if base.joinpath(*parts).exists():
            return base.joinpath(*parts)
        for part in parts:
            (base,) = [path for path in base.iterdir() if path.name.lower() == part.lower()]
    except (OSError, ValueError):  # ValueError: none or several, or an invalid name
        return None
    return base


@dataclass
class ImageFinder:
    """Find the images that a data file lists."""

    folder: Path
    bases: tuple[Path, ...]  # of the paths, from the most likely
    images: Sequence[str]  # all images in the folder, relative to it
    _index: ImageIndex | None = field(default=None)

    def find(self, written: str) -> list[str]:
        """Return the images in a folder, or in a text file that lists images."""
        is_base = written.strip("./\\") == ""
        path = self.bases[0] if is_base else existing(written, self.bases)
        if path is None:
            return []
        if path.is_file():
            return self._listed(path)
        below = path.relative_to(self.folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        return [image for image in self.images if image.startswith(prefix)]

    def _listed(self, path: Path) -> list[str]:
        self._index = self._index or ImageIndex(self.images)
        known, found = set(self.images), []
        for line in filter(None, read_lines(path)):
            written = line.removeprefix("./")
            images = [written] if written in known else self._index.find(written)
            found += images if len(images) == 1 else [written]
        return found
