"""Recognise the layout of box annotations in a folder by the content of its files."""

from dataclasses import dataclass
from pathlib import Path

from reslab.data.boxes.coco_files import find_coco, find_coco_near, named_coco
from reslab.data.boxes.tree import scan
from reslab.data.boxes.voc_homes import VocHome, find_homes
from reslab.data.boxes.yolo_files import YoloFiles, find_yolo


@dataclass(frozen=True)
class CocoFiles:
    """A folder with COCO instances."""

    files: list[Path]


@dataclass(frozen=True)
class VocHomes:
    """A folder with one XML file per image."""

    homes: list[VocHome]


BoxLayout = CocoFiles | VocHomes | YoloFiles


def find_layout(folder: Path, *, malformed: bool = True) -> BoxLayout | None:
    """Return the layout of a folder's boxes and its files; None if it has none that is read.

    COCO's files come first, then VOC's, then YOLO's. With `malformed`, files that are recognised
    only by their names come last: reading them says what is wrong.
    """
    if files := find_coco_near(folder):
        return CocoFiles(files)
    tree = scan(folder)
    if files := find_coco(tree):
        return CocoFiles(files)
    if homes := find_homes(tree):
        return VocHomes(homes)
    if tree.has_texts() and (found := find_yolo(tree)):
        return found
    if not malformed:
        return None
    if files := named_coco(folder):
        return CocoFiles(files)
    homes = find_homes(tree, named=True)
    return VocHomes(homes) if homes else None
