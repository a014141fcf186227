"""Find the folders with one VOC XML file per image, whatever their names and arrangement."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from reslab.data.boxes.tree import IMAGE_FOLDERS, Folder
from reslab.data.part_names import Part, part_of_name
from reslab.runtime.files import open_regular

# usual names for a folder of XML files, the most usual first
XML_FOLDERS = ("annotations", "annotation", "annots", "xmls", "xml", "labels", "label")
ROOT_ELEMENT = re.compile(rb"<\s*([A-Za-z_][\w.-]*)")
COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
SNIFFED = 3  # XML files of a folder whose root element is looked at
HEAD = 4096  # bytes of a file that contain its root element


@dataclass(frozen=True)
class VocHome:
    """A folder of images with one XML file per image."""

    path: Path  # holds both folders, and the lists of the splits in ImageSets/
    xml: Path
    images: Path  # the same folder as `xml` if the XML files lie beside the images
    sheets: dict[str, str]  # from the images' keys, sorted, to XML files relative to `xml`

    @property
    def shown(self) -> str:
        """The folder of the XML files, for messages."""
        return os.path.relpath(self.xml, self.path).replace(os.sep, "/")

    def file(self, key: str) -> Path:
        """Return the XML file of an image, which need not exist."""
        return self.xml / self.sheets.get(key, f"{key}.xml")


def find_homes(tree: Folder, *, named: bool = False) -> list[VocHome]:
    """Return the folders in VOC's layout: the scanned folder itself, or folders below it.

    The XML files lie beside the images, or in a folder of their own beside one with the images;
    either may have subfolders, which are part of the images' keys. If `named`, usual names of
    folders are enough, whatever the content of the XML files.
    """
    return [home for home in _homes_in(tree, named) if home.sheets or named]


def _homes_in(folder: Folder, named: bool) -> Iterator[VocHome]:
    used: list[Folder] = []
    beside = Folder(folder.path, xml=folder.xml, images=folder.images)
    if folder.xml and folder.images:
        if _is_voc(beside):
            yield _home(folder, beside, beside)
    else:
        sheets, images = _pair(folder, named)
        if folder.xml and _is_voc(beside):
            sheets = [beside]
        if images:
            used = [*sheets, *images]
            for xml in sheets:
                yield from _homes_of(folder, xml, images)
    for inner in folder.folders:
        if inner not in used:
            yield from _homes_in(inner, named)


def _pair(folder: Folder, named: bool) -> tuple[list[Folder], list[Folder]]:
    """Return the subfolders with XML files, and the folders with their images."""
    sheets, images = [], []
    for inner in folder.folders:
        name = inner.path.name.lower()
        if inner.has_xml():
            alone = name in XML_FOLDERS or not inner.has_images()
            if alone and (_is_voc(inner) or (named and name in XML_FOLDERS)):
                sheets.append(inner)
        elif named and name == XML_FOLDERS[0]:
            sheets.append(inner)
        elif inner.has_images() or (named and name in IMAGE_FOLDERS):
            images.append(inner)
    if folder.images:
        images.append(Folder(folder.path, images=folder.images))
    return sheets, images


def _homes_of(folder: Folder, xml: Folder, images: Sequence[Folder]) -> Iterator[VocHome]:
    """Yield the home of a folder of XML files, or one for each part that the images are in."""
    part = part_of_name(xml.path.name)
    of_part = [inner for inner in images if part_of_name(inner.path.name) == part]
    usual = [inner for name in IMAGE_FOLDERS for inner in images if _name(inner) == name]
    chosen = [*usual, *of_part] if part is None else [*of_part, *usual]
    if not chosen and part is None and len(images) > 1:
        for inner in images:  # train_images/ and test_images/
            home = _home(folder, xml, inner)
            stems = {os.path.splitext(name)[0] for name in os.listdir(inner.path)}
            sheets = {key: name for key, name in home.sheets.items() if key in stems}
            if sheets:
                yield replace(home, sheets=sheets)
    else:
        yield _home(folder, xml, (chosen or images)[0])


def _name(folder: Folder) -> str:
    return folder.path.name.lower()


def _home(folder: Folder, xml: Folder, images: Folder) -> VocHome:
    inner = [below for below in xml.folders if below.has_xml()]
    while not xml.xml and len(inner) == 1 and not (images.path / inner[0].path.name).is_dir():
        xml = inner[0]  # annotations/xmls/
        inner = [below for below in xml.folders if below.has_xml()]
    sheets: dict[str, str] = {}
    for below in xml.walk():
        prefix = below.path.relative_to(xml.path).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        for name in below.xml:
            sheets.setdefault(prefix + os.path.splitext(name)[0], prefix + name)
    return VocHome(folder.path, xml.path, images.path, dict(sorted(sheets.items())))


def _is_voc(folder: Folder) -> bool:
    """Return whether one of the first XML files below a folder is an annotation as in VOC."""
    files = (below.path / name for below in folder.walk() for name in below.xml)
    return any(_root_element(path) == b"annotation" for path in islice(files, SNIFFED))


def _root_element(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            text = COMMENT.sub(b"", file.read(HEAD).replace(b"\0", b""))  # UTF-16 too
    except OSError:
        return b""
    match = ROOT_ELEMENT.search(text)
    return match[1].lower() if match else b""


def home_part(home: VocHome, folder: Path) -> Part | None:
    """Return the part that the folders of a home name, the deepest first."""
    for place in (home.xml, home.images):
        inside = place.relative_to(folder).parts if place.is_relative_to(folder) else ()
        for name in reversed(inside):
            if part := part_of_name(name):
                return part
    return None
