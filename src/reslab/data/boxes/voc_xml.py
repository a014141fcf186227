"""Parse VOC's XML annotations of one image, including the variants that other tools write."""

import codecs
import math
import re
from dataclasses import dataclass, field
from xml.parsers import expat

from reslab.data.class_names import clean

CORNERS = ("xmin", "ymin", "xmax", "ymax")
MAX_COORDINATE = 2**24  # float32 represents all integers up to here
OUTLINES = ("polygon", "points", "segmentation")  # elements of an object that hold its outline
POINT = re.compile(r"([xy])\d*")  # x1 y1 x2 y2 ..., or x and y of each point
SET, NOT_SET = ("true", "yes"), ("", "false", "no", "none", "unspecified", "unknown")
ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass
class XmlObject:
    """One annotated object in an XML file."""

    line: int
    name: str = ""
    difficult: bool = False
    truncated: bool = False
    corners: dict[str, float] = field(default_factory=dict)
    outline: dict[str, list[float]] = field(default_factory=lambda: {"x": [], "y": []})


class XmlAnnotation:
    """The XML annotations of one image, parsed with expat.

    Elements are matched by their full path, so that the boxes of an object's parts (head, hands) do
    not replace its own box; upper and lower case are equal. An object without a box has the box of
    its outline.
    """

    def __init__(self, data: bytes, file: str) -> None:
        """Parse `data`; raise ValueError, naming file and line, if it is malformed."""
        self.file = file
        self.size: dict[str, float] = {}  # empty if the XML has none
        self.filename = ""  # of the image, if the XML names it
        self.objects: list[XmlObject] = []
        self.without_box = 0  # number of objects that were left out
        self._path: list[str] = []
        self._text: list[str] = []
        data = _as_utf_8(data, file)
        self._parser = expat.ParserCreate("utf-8")  # whatever the first line declares
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text.append
        self._parser.EntityDeclHandler = self._refuse_entity
        try:
            self._parser.Parse(data, True)
        except expat.ExpatError as error:
            reason = f"malformed XML: {expat.ErrorString(error.code)}"
            if not _is_utf_8(data) and reason.endswith("(invalid token)"):
                reason = (
                    'not UTF-8 text; state its encoding in the first line (<?xml version="1.0" '
                    'encoding="gbk"?>), or save it as UTF-8'
                )
            raise ValueError(f"{file}:{error.lineno}: {reason}") from None

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.lower()
        if not self._path and tag != "annotation":
            raise ValueError(f"{self._place()}: the root element is <{tag}>, not <annotation>")
        self._path.append(tag)
        self._text.clear()
        if self._path[1:] == ["object"]:
            self.objects.append(XmlObject(self._parser.CurrentLineNumber))

    def _end(self, tag: str) -> None:
        text = "".join(self._text).strip()
        tag = tag.lower()
        match self._path[1:]:
            case ["filename"]:
                self.filename = text
            case ["size", ("width" | "height") as side] if text.lower() not in NOT_SET:
                self.size[side] = self._number(side, text)
            case ["object", "name"]:
                self.objects[-1].name = clean(text)
            case ["object", "difficult"]:
                self.objects[-1].difficult = self._flag(tag, text)
            case ["object", "truncated"]:
                self.objects[-1].truncated = self._flag(tag, text)
            case ["object", "bndbox", ("xmin" | "ymin" | "xmax" | "ymax") as corner]:
                self.objects[-1].corners[corner] = self._number(corner, text)
            case ["object", outline, *_] if outline in OUTLINES and (axis := POINT.fullmatch(tag)):
                self.objects[-1].outline[axis[1]].append(self._number(tag, text))
            case ["object"]:
                self._complete(self.objects[-1])
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

    def _flag(self, tag: str, text: str) -> bool:
        word = text.lower()
        return word in SET if word in SET + NOT_SET else self._number(tag, text) != 0

    def _complete(self, parsed: XmlObject) -> None:
        """Give an object the box of its outline, or leave it out if it has neither."""
        xs, ys = parsed.outline.values()
        if not parsed.corners and xs and ys:
            parsed.corners = dict(zip(CORNERS, (min(xs), min(ys), max(xs), max(ys)), strict=True))
        missing = [tag for tag in CORNERS if tag not in parsed.corners]
        if not parsed.name:
            missing.insert(0, "name")
        if parsed.name and len(missing) == len(CORNERS):
            self.objects.pop()
            self.without_box += 1
        elif missing:
            raise ValueError(f"{self.file}:{parsed.line}: the object has no <{missing[0]}>")


def _as_utf_8(data: bytes, file: str) -> bytes:
    """Return XML in UTF-8, decoded from its declared encoding: expat knows only a few."""
    data = data.removeprefix(codecs.BOM_UTF8)
    match = ENCODING.match(data)
    encoding = match[1].decode() if match else "utf-8"
    if data.startswith(UTF_16):
        encoding = "utf-16"
    elif encoding.lower() in ("utf-8", "utf8", "utf-16"):  # bytes that spell utf-16 are not UTF-16
        return data
    try:
        return data.decode(encoding).encode()
    except LookupError:
        raise ValueError(f"{file}:1: unknown encoding {encoding!r}") from None
    except UnicodeError:
        raise ValueError(f"{file}:1: not {encoding} text, as its first line states") from None


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
