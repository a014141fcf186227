"""Find the images, labels and class names of a YOLO data set.

YOLO has a text file of boxes for each image, in `labels/` where the image is in `images/`, or
beside it. A data file names the classes and the parts: a YAML file, or darknet's `obj.data`.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from reslab.data.boxes.image_files import ImageIndex, images_below
from reslab.data.class_folders import is_system_folder
from reslab.data.part_names import Part, part_of_name
from reslab.errors import os_reason

YAML_SUFFIXES = (".yaml", ".yml")
NAMES_FILES = re.compile(
    r"(?i)classes\.txt|labels\.txt|_darknet\.labels|.+\.names|predefined_classes\.txt"
)
PARTS: dict[str, Part] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
ROW = re.compile(rf"\d+(\.0*)?(\s+{NUMBER}){{4,}}\s*")  # a class, then a box or an outline
MAX_DEPTH = 3  # levels of folders below the opened one in which a data file is looked for
TRIED = 200  # images whose label files are looked at to recognise the layout


@dataclass(frozen=True)
class YoloFiles:
    """The images of a data set by part, and the names of its classes."""

    images: dict[Part | None, list[str]]  # relative to the folder; None: not divided
    names: tuple[str, ...] = ()  # empty: no file names them
    source: str = ""  # the file that names the classes, relative to the folder
    notes: tuple[str, ...] = ()  # on parts that are not there


def find_yolo(folder: Path) -> YoloFiles | None:
    """Return the files of a YOLO data set; None if the folder has no label file of this kind.

    Raises ValueError if a data file is malformed or none of its training images exist.
    """
    images = sorted(images_below(folder))
    if not any(_is_label_file(folder / file) for file in _labels_to_try(images)):
        return None
    data_file = _data_file(folder)
    if data_file is not None:
        return _read_data_file(folder, data_file, images)
    names, source = _names_beside(folder)
    return YoloFiles(_by_folder(folder, images), names, source)


def label_files(image: str) -> Iterator[str]:
    """Yield the places where an image's label file may be, from the usual one to others."""
    path = PurePosixPath(image)
    folders = path.parts[:-1]
    at = [number for number, name in enumerate(folders) if name.lower() == "images"]
    for number in reversed(at):
        yield (
            str(PurePosixPath(*folders[:number], "labels", *folders[number + 1 :], path.stem))
            + ".txt"
        )
    yield str(path.with_suffix("")) + ".txt"
    yield str(PurePosixPath(*folders, "labels", path.stem)) + ".txt"
    if len(folders) > 1:
        yield str(PurePosixPath(*folders[:-1], "labels", path.stem)) + ".txt"


def _labels_to_try(images: Sequence[str]) -> Iterator[str]:
    step = max(len(images) // TRIED, 1)
    for image in islice(images, 0, None, step):
        yield from label_files(image)


def _is_label_file(path: Path) -> bool:
    """Return whether a file begins with a YOLO row."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            line = next((line for line in islice(file, 20) if line.strip()), "")
    except (OSError, ValueError):
        return False
    return ROW.fullmatch(line.strip()) is not None


def _data_file(folder: Path) -> Path | None:
    """Return the YAML or darknet file that describes the data set, the nearest to the folder."""
    found: list[tuple[int, str, Path]] = []
    for place, folders, files in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        shown = [name for name in folders if name[0] != "." and not is_system_folder(name)]
        folders[:] = shown if depth < MAX_DEPTH else []
        found += [(depth, name, Path(place, name)) for name in files if _is_data_file(place, name)]
    return min(found)[2] if found else None


def _is_data_file(place: str, name: str) -> bool:
    path = Path(place, name)
    if name.lower().endswith(YAML_SUFFIXES):
        return _describes(_parse_yaml(path))
    return name.lower().endswith(".data") and "names" in _darknet_keys(path)


def _describes(content: Any) -> bool:
    if not isinstance(content, dict):
        return False
    return "names" in content and bool({"train", "val", "valid", "test", "path"} & content.keys())


def _parse_yaml(path: Path) -> Any:
    """Return the content of a YAML file; None if it is not text.

    Raises ValueError if it is malformed and was meant to describe a data set.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    try:
        return yaml.safe_load(text)
    except RecursionError:
        return None
    except yaml.YAMLError as error:
        if "names" not in text:
            return None
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = f":{mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: malformed YAML") from None


def _darknet_keys(path: Path) -> dict[str, str]:
    """Return the `key = value` lines of a file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _read_data_file(folder: Path, path: Path, images: list[str]) -> YoloFiles:
    shown = path.relative_to(folder).as_posix()
    finder = _Finder(folder, path.parent, images)
    if path.suffix.lower() in YAML_SUFFIXES:
        content = _parse_yaml(path)
        names, entries = _names(content, shown), dict(content)
        finder.base = finder.base_of(content.get("path"))
    else:
        content = entries = _darknet_keys(path)
        names_file = finder.file(entries["names"])
        if names_file is None:
            raise ValueError(f"{path}: names = {entries['names']} does not exist")
        names = _read_names(names_file)
    by_part: dict[Part | None, list[str]] = {}
    notes = []
    for key, part in PARTS.items():
        if not (entry := entries.get(key)):
            continue
        texts = entry if isinstance(entry, list) else [entry]
        found = [image for text in texts for image in finder.images_of(str(text))]
        if found:
            by_part.setdefault(part, []).extend(dict.fromkeys(found))
        else:
            notes.append(f"{shown}: {key}: {entry} has no images here")
    if "train" not in by_part:
        divided = _by_folder(folder, images)
        if by_part or ("train" not in divided | {"train": []} and None not in divided):
            raise ValueError(f"{path}: {notes[0] if notes else 'it names no training images'}")
        by_part = divided
    return YoloFiles(by_part, names, shown, tuple(notes))


def _names(content: dict[str, Any], shown: str) -> tuple[str, ...]:
    """Return the names of the classes in a YAML file, a list or a dictionary by number."""
    names, count = content["names"], content.get("nc")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise ValueError(f"{shown}: names must have the numbers 0 to {len(names) - 1}")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{shown}: names must be a list of the classes, or 0: NAME and so on")
    if isinstance(count, int) and count != len(names):
        raise ValueError(f"{shown}: nc is {count}, but names has {len(names)} classes")
    return tuple(str(name).strip() for name in names)


def _names_beside(folder: Path) -> tuple[tuple[str, ...], str]:
    """Return the names in a text file of the folder or of labels/, and the file."""
    places = [
        folder,
        *(folder / name for name in sorted(os.listdir(folder)) if (folder / name).is_dir()),
    ]
    for place in places:
        for name in sorted(os.listdir(place)):
            if NAMES_FILES.fullmatch(name) and not _is_label_file(place / name):
                path = place / name
                if names := _read_names(path):
                    return names, path.relative_to(folder).as_posix()
    return (), ""


def _read_names(path: Path) -> tuple[str, ...]:
    """Return the names of the classes in a text file, one per line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines)


def _by_folder(folder: Path, images: Iterable[str]) -> dict[Part | None, list[str]]:
    """Divide images with labels by the first of their folders that is named as a part."""
    by_part: dict[Part | None, list[str]] = {}
    for image in images:
        parts = (part_of_name(name) for name in PurePosixPath(image).parts[:-1])
        by_part.setdefault(next(filter(None, parts), None), []).append(image)
    if len(by_part) > 1 and None in by_part:
        del by_part[None]  # loose images beside the parts
    return by_part


@dataclass
class _Finder:
    """Find images by paths that may have been written on another machine."""

    folder: Path
    base: Path
    images: list[str]
    index: ImageIndex | None = field(default=None)

    def base_of(self, written: object) -> Path:
        """Return the folder that a YAML file calls `path`, if it is here; else the file's own."""
        return (self._existing(str(written)) if written else None) or self.base

    def _existing(self, written: str) -> Path | None:
        """Return the longest end of a path that exists in the base or the opened folder."""
        parts = [
            p for p in PurePosixPath(written.replace("\\", "/")).parts if p not in ("/", "..", ".")
        ]
        for start in range(len(parts)):
            for base in dict.fromkeys((self.base, self.folder)):
                path = base.joinpath(*parts[start:])
                if path.exists():
                    return path
        return None

    def file(self, written: str) -> Path | None:
        path = self._existing(written)
        return path if path and path.is_file() else None

    def images_of(self, written: str) -> list[str]:
        """Return the images in a folder or in a text file of paths."""
        if written.strip("./\\") == "":
            path: Path | None = self.base
        else:
            path = self._existing(written)
        if path is None:
            return []
        if path.is_file():
            return self._listed(path)
        below = path.relative_to(self.folder).as_posix() if path != self.folder else "."
        prefix = "" if below == "." else f"{below}/"
        return [image for image in self.images if image.startswith(prefix)]

    def _listed(self, path: Path) -> list[str]:
        self.index = self.index or ImageIndex(self.images)
        known, found = set(self.images), []
        for line in _read_names(path):
            written = line.strip().removeprefix("./")
            if not written:
                continue
            images = [written] if written in known else self.index.find(written)
            found += images[:1] if len(images) == 1 else [written]
        return found
