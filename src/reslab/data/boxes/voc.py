"""Read Pascal VOC: one XML file per image, and one list of images per split."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from reslab.data.boxes.annotations import Annotations, Objects
from reslab.data.boxes.voc_lists import XML_FOLDER
from reslab.data.class_folders import FolderReader, Problem
from reslab.data.decode import IMAGE_SUFFIXES, image_size
from reslab.errors import os_reason

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
YEARS = ("VOC2007", "VOC2012")
IMAGES = ("JPEGImages", "images")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
MAX_COORDINATE = 2**24  # float32 represents all integers up to here


@dataclass
class XmlObject:
    """One annotated object in an XML file."""

    line: int
    name: str = ""
    difficult: bool = False
    truncated: bool = False
    corners: dict[str, float] = field(default_factory=dict)


class XmlAnnotation:
    """The XML annotations of one image, parsed with expat.

    Elements are matched by their full path, so that the boxes of an object's parts (head, hands) do
    not replace its own box.
    """

    def __init__(self, data: bytes, file: str) -> None:
        """Parse `data`; raise ValueError, naming file and line, if it is malformed."""
        self.file = file
        self.size: dict[str, float] = {}  # empty if the XML has none
        self.objects: list[XmlObject] = []
        self._path: list[str] = []
        self._text: list[str] = []
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text.append
        self._parser.EntityDeclHandler = self._refuse_entity
        try:
            self._parser.Parse(data, True)
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise ValueError(f"{file}:{error.lineno}: malformed XML: {reason}") from None

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._path and tag != "annotation":
            raise ValueError(f"{self._place()}: the root element is <{tag}>, not <annotation>")
        self._path.append(tag)
        self._text.clear()
        if self._path[1:] == ["object"]:
            self.objects.append(XmlObject(self._parser.CurrentLineNumber))

    def _end(self, tag: str) -> None:
        text = "".join(self._text).strip()
        match self._path[1:]:
            case ["size", ("width" | "height") as side]:
                self.size[side] = self._number(side, text)
            case ["object", "name"]:
                self.objects[-1].name = text
            case ["object", "difficult"]:
                self.objects[-1].difficult = self._number(tag, text or "0") != 0
            case ["object", "truncated"]:
                self.objects[-1].truncated = self._number(tag, text or "0") != 0
            case ["object", "bndbox", ("xmin" | "ymin" | "xmax" | "ymax") as corner]:
                self.objects[-1].corners[corner] = self._number(corner, text)
            case ["object"]:
                self._check_complete(self.objects[-1])
        self._path.pop()
        self._text.clear()

    def _place(self) -> str:
        return f"{self.file}:{self._parser.CurrentLineNumber}"

    def _refuse_entity(self, *declaration: object) -> None:
        raise ValueError(f"{self._place()}: entity declarations are not allowed")

    def _number(self, tag: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= MAX_COORDINATE:
            raise ValueError(f"{self._place()}: <{tag}> has the invalid value {text[:40]!r}")
        return value

    def _check_complete(self, parsed: XmlObject) -> None:
        missing = [tag for tag in CORNERS if tag not in parsed.corners]
        if not parsed.name:
            missing.insert(0, "name")
        if missing:
            raise ValueError(f"{self.file}:{parsed.line}: the object has no <{missing[0]}>")


def find_voc(folder: Path) -> list[Path]:
    """Return folders with Annotations/: `folder` itself, or VOC2007 and VOC2012 in a VOCdevkit."""
    places = [folder, *(base / name for base in (folder, folder / "VOCdevkit") for name in YEARS)]
    return [place for place in places if (place / XML_FOLDER).is_dir() and _images_of(place)]


def _images_of(home: Path) -> str:
    return next((name for name in IMAGES if (home / name).is_dir()), "")


def read_voc(
    homes: Iterable[tuple[Path, list[str]]],
    folder: Path,
    name: str,
    classes: Sequence[str] = (),
) -> Annotations:
    """Read the annotations of the given images as one split, and collect their problems.

    `homes` are VOC folders in `folder`, each with the keys of its images. If `classes` is empty,
    they are taken from the annotated objects.
    """
    xml_files: list[str] = []
    objects = Objects()

    def place(row: int) -> str:
        return f"{xml_files[objects.images[row]]}:{objects.places[row]}"

    part = Annotations("VOC", name, folder, place, objects=objects)
    for home, keys in homes:
        prefix = "" if home == folder else f"{home.relative_to(folder).as_posix()}/"
        images = _images_of(home)
        by_stem = _by_stem(home / images)
        for key in dict.fromkeys(keys):
            xml_file = f"{prefix}{XML_FOLDER}/{key}.xml"
            image = f"{prefix}{images}/{by_stem.get(key, f'{key}.jpg')}"
            try:
                _add_image(part, xml_file, key, image)
            except ValueError as error:
                file_and_line, _, reason = str(error).partition(": ")
                part.problems.append(Problem("annotation file", file_and_line, reason))
            else:
                xml_files.append(xml_file)
    part.classes = {name: str(name) for name in classes or sorted(set(objects.names), key=str)}
    return part


def _by_stem(folder: Path) -> dict[str, str]:
    names = sorted(os.listdir(folder), reverse=True)  # reversed: a.jpg wins over a.png
    return {
        os.path.splitext(name)[0]: name for name in names if name.lower().endswith(IMAGE_SUFFIXES)
    }


def _add_image(part: Annotations, file: str, key: str, image: str) -> None:
    """Append one image and its objects to the columns; raise ValueError as `PLACE: REASON`."""
    try:
        annotation = XmlAnnotation((part.root / file).read_bytes(), file)
    except OSError as error:
        raise ValueError(f"{file}: {os_reason(error)}") from None
    width, height = (int(annotation.size.get(side, 0)) for side in ("width", "height"))
    if width <= 0 or height <= 0:
        # some annotation tools omit the size, or write zeros
        width, height = image_size(FolderReader(str(part.root))(image), image)
    row = len(part.files)
    part.files.append(image)
    part.keys.append(key)
    part.sizes.append((width, height))
    objects = part.objects
    for parsed in annotation.objects:
        x0, y0, x1, y1 = (parsed.corners[corner] for corner in CORNERS)
        objects.images.append(row)
        objects.names.append(parsed.name)
        objects.boxes.append((x0 - 1, y0 - 1, x1, y1))
        objects.places.append(parsed.line)
        objects.difficult.append(parsed.difficult)
        objects.truncated.append(parsed.truncated)
        objects.crowd.append(False)
