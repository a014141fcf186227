"""Recognise annotations in formats that are not read, by their content, and say what to do."""

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from reslab.data.boxes.tree import Folder, scan
from reslab.data.class_folders import Problem
from reslab.data.location import Location
from reslab.runtime.files import open_regular, read_regular
from reslab.runtime.json_text import parse_json

TRIED = 4  # files looked at in each folder, of each kind
LARGEST = 64 << 20  # bytes of a JSON file that is parsed to recognise it
ROWS = 100  # of a table, which are looked at
READ = 1 << 16  # bytes of a text file
EXPORT = "export it from {0} as {1}"
CONVERT = "convert it to COCO, for example with {0}"
# the format -> the way on
WAYS = {
    "labelme": CONVERT.format("labelme2coco"),
    "VIA": "export it from VIA in COCO format",
    "CVAT": EXPORT.format("CVAT", "COCO 1.0"),
    "CreateML": CONVERT.format("Roboflow or FiftyOne"),
    "Label Studio": EXPORT.format("Label Studio", "COCO"),
    "Supervisely": EXPORT.format("Supervisely", "COCO or Pascal VOC"),
    "Datumaro": "convert it with `datum convert -f coco`",
    "BDD100K": CONVERT.format("its own bdd100k.label.to_coco"),
    "COCO panoptic": "use COCO's instances files, which have boxes",
    "Open Images": CONVERT.format("FiftyOne"),
    "KITTI": CONVERT.format("FiftyOne"),
    "DOTA": "its boxes are rotated: convert them to upright boxes in COCO format",
    "VisDrone": CONVERT.format("a short script"),
    "WIDER FACE": CONVERT.format("a short script"),
    "keras-yolo3": CONVERT.format("Roboflow or a short script"),
    "Labelbox": EXPORT.format("Labelbox", "COCO"),
    "VoTT": EXPORT.format("VoTT", "Pascal VOC"),
    "FiftyOne": EXPORT.format("FiftyOne", "COCODetectionDataset"),
    "COCO without categories": "add the list 'categories', with the id and name of each class",
    "a table of boxes (CSV)": CONVERT.format("FiftyOne or a short script"),
}
CORNER_COLUMNS = (
    {"xmin", "ymin", "xmax", "ymax"}, {"x_min", "y_min", "x_max", "y_max"},
    {"x1", "y1", "x2", "y2"}, {"x", "y", "w", "h"}, {"x", "y", "width", "height"}, {"bbox"},
)  # fmt: skip
IMAGE_NAME = re.compile(r"(?i).+\.(jpe?g|png|bmp|tiff?|webp)")
NUMBER = r"-?\d+(\.\d+)?"
CREATEML = (("image", "annotations"), ("imagefilename", "annotation"))  # keys of a record
KITTI = re.compile(rf"\w+ {NUMBER} \d {NUMBER}( {NUMBER}){{11,12}}")
VISDRONE = re.compile(r"(-?\d+,){7}-?\d+,?")
KERAS_YOLO = re.compile(r"(?i).+\.(jpe?g|png|bmp)( \d+,\d+,\d+,\d+,\d+)+")
WIDER = re.compile(r"-?\d+( -?\d+){9}")
DOTA = re.compile(rf"({NUMBER} ){{8}}[\w-]+ [01]")


def foreign_annotations(folder: Path) -> str | None:
    """Return a line on box annotations in a format that is not read; None if there are none."""
    tree = scan(folder)
    for place in tree.walk():
        for path in _files(place):
            if kind := format_of(path):
                shown = path.relative_to(folder).as_posix()
                return f"{shown} has boxes in the format of {kind}, which is not read: {WAYS[kind]}"
    return None


def name_boxes(place: Location, problem: Problem) -> Problem:
    """Return a problem with the classes of a folder, or the reason for it: annotated boxes."""
    if problem.kind not in ("no classes", "one class") or not isinstance(place, Path):
        return problem
    line = foreign_annotations(place)
    if line is None:
        return problem
    return replace(problem, kind="other boxes", refusal=f"{place} has no classes: {line}")


def _files(place: Folder) -> Iterator[Path]:
    """Yield a few files of each kind in a folder, which stand for the others."""
    for names in (place.json, place.xml, place.tables, place.texts):
        for name in islice(names, TRIED):
            yield place.path / name


def format_of(path: Path) -> str | None:
    """Return the format of a file with boxes, one of WAYS; None if it is another file."""
    try:
        if not path.is_file():  # reading a pipe could block forever
            return None
        match path.suffix.lower():
            case ".json":
                return _of_json(path)
            case ".xml":
                return _of_xml(path)
            case ".csv" | ".tsv":
                return _of_table(path)
            case ".txt":
                return _of_text(path)
    except (OSError, ValueError, LookupError, csv.Error, ElementTree.ParseError):
        return None
    return None


def _of_json(path: Path) -> str | None:
    content = parse_json(read_regular(path, LARGEST))
    if isinstance(content, list):
        return _of_records(content)
    if not isinstance(content, dict):
        return None
    keys = content.keys()
    if {"shapes", "imagePath"} <= keys:
        return "labelme"
    if "_via_img_metadata" in keys or ({"project", "metadata", "file"} <= keys):
        return "VIA"
    first = next(iter(content.values()), None)
    if isinstance(first, dict) and {"filename", "regions"} <= first.keys():
        return "VIA"
    if "objects" in keys and "size" in keys:
        return "Supervisely"
    if "items" in keys and "categories" in keys:
        return "Datumaro"
    if isinstance(content.get("assets"), dict) and "tags" in keys:
        return "VoTT"
    if isinstance(content.get("classes"), list) and isinstance(content.get("labels"), dict):
        return "FiftyOne"
    return _of_coco(content)


def _of_coco(content: dict[str, Any]) -> str | None:
    """Return the variant of COCO that a document is, if it is not instances."""
    annotations = content.get("annotations")
    if not (isinstance(annotations, list) and annotations and isinstance(annotations[0], dict)):
        return None
    if "segments_info" in annotations[0]:
        return "COCO panoptic"
    lacks_classes = "categories" not in content and isinstance(content.get("images"), list)
    return "COCO without categories" if lacks_classes and "bbox" in annotations[0] else None


def _of_records(records: list[Any]) -> str | None:
    if not records or not isinstance(records[0], dict):
        return None
    first = records[0]
    for of_image, of_boxes in CREATEML:
        inner = next((r for r in records if r.get(of_boxes)), first).get(of_boxes)
        if of_image in first and isinstance(inner, list) and inner and "coordinates" in inner[0]:
            return "CreateML"
    if "Labeled Data" in first or "data_row" in first:
        return "Labelbox"
    if "data" in first and "annotations" in first:
        return "Label Studio"
    return "BDD100K" if "name" in first and "labels" in first else None


def _of_xml(path: Path) -> str | None:
    with open_regular(path) as file:
        for number, (_, element) in enumerate(ElementTree.iterparse(file, ("start",))):
            if number == 0 and element.tag != "annotations":
                return None
            if element.tag in ("image", "track"):
                return "CVAT"
    return None


def _of_table(path: Path) -> str | None:
    with open(path, encoding="utf-8-sig", newline="") as file:
        text = file.read(READ)
    dialect = csv.Sniffer().sniff(text.partition("\n")[0], ",;\t")
    header = next(csv.reader(text.splitlines(), dialect), [])
    columns = {name.strip().lower() for name in header}
    if "region_shape_attributes" in columns:
        return "VIA"
    if {"imageid", "labelname", "xmin"} <= columns:
        return "Open Images"
    if any(corners <= columns for corners in CORNER_COLUMNS):
        return "a table of boxes (CSV)"
    rows = islice(csv.reader(text.splitlines(), dialect), ROWS)
    return "a table of boxes (CSV)" if any(map(_is_box, rows)) else None


def _is_box(row: list[str]) -> bool:
    """Return whether a row is of keras-retinanet: path, x1, y1, x2, y2, class, without a header."""
    if len(row) != 6 or not IMAGE_NAME.fullmatch(row[0]):
        return False
    return all(re.fullmatch(NUMBER, value) for value in row[1:5])


def _of_text(path: Path) -> str | None:
    with open(path, encoding="utf-8-sig") as file:
        lines = [line.strip() for line in islice(file, 10) if line.strip()]
    if lines and all(KITTI.fullmatch(line) for line in lines):
        return "KITTI"
    if lines and all(VISDRONE.fullmatch(line) for line in lines):
        return "VisDrone"
    if lines and all(KERAS_YOLO.fullmatch(line) for line in lines):
        return "keras-yolo3"
    if len(lines) > 2 and IMAGE_NAME.fullmatch(lines[0]) and WIDER.fullmatch(lines[2]):
        return "WIDER FACE"
    rows = [line for line in lines if not line.startswith(("imagesource", "gsd"))]
    return "DOTA" if rows and all(DOTA.fullmatch(line) for line in rows) else None
