"""Parse VOC's XML annotations of one image."""

import math
from dataclasses import dataclass, field
from xml.parsers import expat

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
