"""Refuse folders of images with boxes where images to classify are needed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reslab.data.boxes.foreign import foreign_annotations
from reslab.data.boxes.layouts import CocoFiles, VocHomes, find_layout
from reslab.data.boxes.voc_homes import XML_FOLDERS
from reslab.data.boxes.yolo_files import YoloFiles
from reslab.data.class_folders import subfolders
from reslab.data.location import Location, is_annotation_file
from reslab.data.part_names import part_of_name
from reslab.data.parts import WRAPPERS

MAX_SETS = 20  # class folders that are looked into


@contextmanager
def explaining_boxes(place: Location) -> Iterator[None]:
    """Run a block that opens images to classify; if it fails because `place` has boxes, say so."""
    try:
        yield
    except ValueError:
        if isinstance(place, Path) and (line := _boxes_in(place)):
            raise ValueError(line) from None
        raise


def refuse_boxes(place: Location, root: Location, ids: Sequence[str]) -> None:
    """Raise ValueError if the class folders `ids` in `root` are the folders of a set of boxes."""
    if not (isinstance(place, Path) and isinstance(root, Path)):
        return
    few = len(ids) <= MAX_SETS
    if not (_are_doubtful(ids) or (few and any(_has_sheets(root / id_) for id_ in ids))):
        return
    if line := _boxes_in(place):
        raise ValueError(line)


def refuse_foreign_boxes(place: Path, ids: Sequence[str]) -> None:
    """Raise ValueError if `ids` may not be classes, as there are boxes in an unread format."""
    if _are_doubtful(ids) and place.is_dir() and (line := foreign_annotations(place)):
        raise ValueError(f"{place} has no classes: {line}")


def _are_doubtful(ids: Sequence[str]) -> bool:
    """Return whether folders may not be classes: a single one, or parts, or `images`."""
    return len(ids) == 1 or any(id_.lower() in WRAPPERS or part_of_name(id_) for id_ in ids)


def _has_sheets(folder: Path) -> bool:
    return folder.is_dir() and any(name.lower() in XML_FOLDERS for name in subfolders(folder))


def _boxes_in(place: Path) -> str:
    """Return the line with which boxes in a folder or file are refused; "" if it has none."""
    if not (place.is_dir() or is_annotation_file(place)):
        return ""
    match find_layout(place, malformed=False) if place.is_dir() else CocoFiles([place]):
        case CocoFiles():
            layout = "COCO"
        case VocHomes():
            layout = "VOC"
        case YoloFiles():
            layout = "YOLO"
        case None:
            return ""
    return (
        f"{place} has images with boxes ({layout}), which detectors are trained on: use "
        "own-detection-resnet50-c4 or another own-detection-* recipe; classifiers and `reslab "
        "pack` need the images of each class in a folder of their own"
    )
