"""Pascal VOC: an XML an image, and lists of the images of each part."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from reslab.data.boxes.annotations import Annotations, Objects
from reslab.data.decode import IMAGE_SUFFIXES, BadImage, image_size
from reslab.data.folder import FolderReader, Problem
from reslab.errors import os_reason

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
YEARS = ("VOC2007", "VOC2012")
SHEETS, IMAGES, LISTS = "Annotations", ("JPEGImages", "images"), "ImageSets/Main"
MAX_COORDINATE = 2**24  # float32 counts every pixel up to here


@dataclass
class MarkedObject:
    """One object of a sheet."""

    line: int
    name: str = ""
    difficult: bool = False
    truncated: bool = False
    corners: dict[str, float] = field(default_factory=dict)


@dataclass
class Sheet:
    """What the XML of one image says."""

    size: dict[str, float] = field(default_factory=dict)  # empty where it says nothing
    objects: list[MarkedObject] = field(default_factory=list)


class _Reader:
    """The handlers of expat: only whole paths count, so the boxes of parts (heads, hands) do not
    replace those of their objects."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.sheet = Sheet()
        self.path: list[str] = []
        self.text: list[str] = []
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.text_of
        self.parser.EntityDeclHandler = self.entity

    def text_of(self, text: str) -> None:
        self.text.append(text)

    def entity(self, *declared: object) -> None:
        raise ValueError(f"{self.place()}: declares entities, which VOC does not")

    def place(self) -> str:
        return f"{self.file}:{self.parser.CurrentLineNumber}"

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self.path and tag != "annotation":
            raise ValueError(f"{self.place()}: <{tag}> where VOC's <annotation> should begin")
        self.path.append(tag)
        self.text.clear()
        if self.path[1:] == ["object"]:
            self.sheet.objects.append(MarkedObject(self.parser.CurrentLineNumber))

    def end(self, tag: str) -> None:
        place, text = self.path[1:], "".join(self.text).strip()
        match place:
            case ["size", ("width" | "height") as side]:
                self.sheet.size[side] = self.number(side, text)
            case ["object", "name"]:
                self.sheet.objects[-1].name = text
            case ["object", ("difficult" | "truncated") as flag]:
                setattr(self.sheet.objects[-1], flag, self.number(flag, text or "0") != 0)
            case ["object", "bndbox", ("xmin" | "ymin" | "xmax" | "ymax") as corner]:
                self.sheet.objects[-1].corners[corner] = self.number(corner, text)
            case ["object"]:
                self.whole(self.sheet.objects[-1])
        self.path.pop()
        self.text.clear()

    def number(self, tag: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= MAX_COORDINATE:
            raise ValueError(f"{self.place()}: {text[:40]!r} as <{tag}>")
        return value

    def whole(self, found: MarkedObject) -> None:
        lacks = [tag for tag in ("xmin", "ymin", "xmax", "ymax") if tag not in found.corners]
        if not found.name:
            lacks.insert(0, "name")
        if lacks:
            raise ValueError(f"{self.file}:{found.line}: an object without <{lacks[0]}>")


def read_sheet(data: bytes, file: str) -> Sheet:
    """The objects of one image; ValueError with file and line."""
    reader = _Reader(file)
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise ValueError(f"{file}:{error.lineno}: malformed XML: {reason}") from None
    return reader.sheet


def find_voc(folder: Path) -> list[Path]:
    """The folders with Annotations/: VOC2007 and VOC2012 of a VOCdevkit, or the folder itself."""
    places = [folder, *(base / name for base in (folder, folder / "VOCdevkit") for name in YEARS)]
    return [place for place in places if (place / SHEETS).is_dir() and _images_of(place)]


def _images_of(home: Path) -> str:
    return next((name for name in IMAGES if (home / name).is_dir()), "")


def has_part(home: Path, part: str) -> bool:
    """Whether there is a list of the part's images, and annotations of them: those of VOC2012's
    test were never published."""
    if not (home / LISTS / f"{part}.txt").is_file():
        return False
    keys = listed(home, part)
    return bool(keys) and (home / SHEETS / f"{keys[0]}.xml").is_file()


def listed(home: Path, part: str) -> list[str]:
    """The images of a part: the first word of each line of its list."""
    path = home / LISTS / f"{part}.txt"
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    return [line.split()[0] for line in lines if line.strip()]


def all_keys(home: Path) -> list[str]:
    """Every image that has annotations."""
    names = os.listdir(home / SHEETS)
    return sorted(name[:-4] for name in names if name.endswith(".xml") and name[0] != ".")


def read_voc(
    homes: Iterable[tuple[Path, list[str]]],
    folder: Path,
    name: str,
    classes: Sequence[str] = (),
) -> Annotations:
    """The images of several folders below `folder` as one part, as they are. Without `classes`
    they are those that are met."""
    sheets: list[str] = []
    objects = Objects()

    def place(at: int) -> str:
        return f"{sheets[objects.images[at]]}:{objects.places[at]}"

    part = Annotations(name, folder, place, {}, objects=objects)
    for home, keys in homes:
        prefix = "" if home == folder else f"{home.relative_to(folder).as_posix()}/"
        images = _images_of(home)
        by_stem = _by_stem(home / images)
        for key in dict.fromkeys(keys):
            sheet = f"{prefix}{SHEETS}/{key}.xml"
            file = f"{prefix}{images}/{by_stem.get(key, f'{key}.jpg')}"
            try:
                _add_sheet(part, sheet, key, file)
            except ValueError as error:
                where, _, what = str(error).partition(": ")
                part.faults.append(Problem("annotation file", where, what))
                continue
            sheets.append(sheet)
    part.classes = {name: str(name) for name in classes or sorted(set(objects.names), key=str)}
    return part


def _by_stem(folder: Path) -> dict[str, str]:
    names = sorted(os.listdir(folder), reverse=True)  # of a.jpg and a.png, a.jpg
    return {
        os.path.splitext(name)[0]: name for name in names if name.lower().endswith(IMAGE_SUFFIXES)
    }


def _add_sheet(part: Annotations, sheet: str, key: str, file: str) -> None:
    """Puts one image and its objects into the columns; ValueError `PLACE: REASON`."""
    try:
        data = (part.root / sheet).read_bytes()
    except OSError as error:
        raise ValueError(f"{sheet}: {os_reason(error)}") from None
    found = read_sheet(data, sheet)
    width, height = (int(found.size.get(side, 0)) for side in ("width", "height"))
    if width <= 0 or height <= 0:
        width, height = _size_by_header(part.root, file)
    row = len(part.files)
    part.files.append(file)
    part.keys.append(key)
    part.sizes.append((width, height))
    for marked in found.objects:
        x0, y0, x1, y1 = (marked.corners[name] for name in ("xmin", "ymin", "xmax", "ymax"))
        part.objects.images.append(row)
        part.objects.names.append(marked.name)
        part.objects.boxes.append((x0 - 1, y0 - 1, x1, y1))
        part.objects.places.append(marked.line)
        part.objects.difficult.append(marked.difficult)
        part.objects.truncated.append(marked.truncated)
        part.objects.crowd.append(False)


def _size_by_header(root: Path, file: str) -> tuple[int, int]:
    """Where the XML does not say: some programs write no size, or zeros."""
    try:
        return image_size(FolderReader(str(root))(file), file)
    except BadImage as bad:
        raise ValueError(str(bad)) from None
