"""Read COCO instances: a JSON file of images, categories and boxes, beside image folders."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reslab.data.boxes.annotations import Annotations, Objects
from reslab.data.class_folders import Problem
from reslab.errors import os_reason

ANNOTATION_FILE = re.compile(r"(instances(?!.*result).*|annotations|_annotations\.coco)\.json")
IN_ANNOTATIONS = re.compile(ANNOTATION_FILE.pattern + r"|(train|val|test)[^/]*\.json")
LISTS = ("images", "annotations", "categories")
COCO_TRAIN = ("train", "training")
COCO_TEST = ("val", "valid", "validation", "test")
# Required keys of a record. A pydantic schema would take longer on COCO's 860,000 annotations.
CATEGORY = {"id": int, "name": str}
IMAGE = {"id": (int, str), "file_name": str, "width": int, "height": int}
ANNOTATION = {"image_id": (int, str), "category_id": int, "bbox": list}
NAN = float("nan")
MAX_PIXEL = 2**24  # float32 represents all integers up to here


def find_coco(folder: Path) -> list[Path]:
    """Return the annotation files in annotations/, in the folder, and in its train/, val/, ..."""
    files = _annotation_files(folder / "annotations", IN_ANNOTATIONS)
    for place in (folder, *(folder / name for name in COCO_TRAIN + COCO_TEST)):
        files += _annotation_files(place, ANNOTATION_FILE)
    return files


def _annotation_files(place: Path, names: re.Pattern[str]) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if names.fullmatch(path.name))


def part_of(path: Path) -> str:
    """Return train, val, test or whole, judged by the name of a file or (Roboflow) its folder."""
    for name in (path.stem, path.parent.name):
        for part in (*COCO_TRAIN, *COCO_TEST):
            if re.search(rf"(^|[_-]){part}(\d{{4}})?($|[_-])", name):
                return "train" if part in COCO_TRAIN else "test" if part == "test" else "val"
    return "whole"


def year_of(path: Path) -> str:
    """Return the year in a file's name, as in instances_train2014.json, or "" if there is none."""
    match = re.search(r"(?<!\d)(19|20)\d\d(?!\d)", path.stem)
    return match.group() if match else ""


def read_coco(path: Path, folder: Path, name: str) -> Annotations:
    """Read one annotation file of the data set in `folder`, and collect its problems.

    Raises ValueError if the file is not JSON with the three lists of COCO instances.
    """
    document = _read_lists(path)
    shown = str(path.relative_to(folder) if path.is_relative_to(folder) else path)
    objects = Objects()
    part = Annotations(
        "COCO", name, folder, lambda row: f"{shown}: annotation {objects.places[row]}",
        objects=objects,
    )  # fmt: skip
    problems = [
        *_read_categories(part, document["categories"]),
        *_read_images(part, document["images"]),
    ]
    rows = {key: row for row, key in enumerate(part.keys)}
    for number, annotation in enumerate(document["annotations"], 1):
        problems += _add_annotation(objects, annotation, number, rows)
    part.problems = [Problem(kind, shown, note) for kind, note in problems]
    part.root = _image_folder(path, folder, part)
    return part


def read_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a JSON file; raise ValueError, naming the malformed line."""
    try:
        return json.loads(path.read_bytes(), object_hook=object_hook)
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}"
        raise ValueError(f"{place}: malformed JSON: {error.msg}, column {error.colno}") from None
    except ValueError as error:  # a number with too many digits
        raise ValueError(f"{path}: {error}") from None


def _without_outline(record: dict[str, Any]) -> dict[str, Any]:
    """Drop an object's outline while parsing: outlines make up nine tenths of a file."""
    record.pop("segmentation", None)
    return record


def _read_lists(path: Path) -> dict[str, list[Any]]:
    document = read_json(path, object_hook=_without_outline)
    if not isinstance(document, dict):
        raise ValueError(
            f"{path}: not COCO instances, a JSON object with the lists {', '.join(LISTS)}"
        )
    for name in LISTS:
        if not isinstance(document.get(name), list):
            state = "is not a list" if name in document else "is missing"
            raise ValueError(
                f"{path}: {name!r} {state}; COCO instances have the lists {', '.join(LISTS)}"
            )
    return document


def _record_fault(record: Any, keys: dict[str, Any]) -> str:
    """Return the first missing or invalid key of a record as text, or "" if it is valid."""
    if not isinstance(record, dict):
        return "is not an object"
    for key, kind in keys.items():
        if key not in record:
            return f"has no {key!r}"
        if not isinstance(record[key], kind) or isinstance(record[key], bool):
            return f"has an invalid {key!r}: {record[key]!r}"
    return ""


KindAndNote = tuple[str, str]


def _read_categories(part: Annotations, categories: list[Any]) -> Iterator[KindAndNote]:
    """Fill in the classes; yield any problems."""
    names: dict[int, str] = {}
    for number, category in enumerate(categories, 1):
        if fault := _record_fault(category, CATEGORY):
            yield "annotation file", f"category number {number} {fault}"
        elif category["id"] in names:
            yield "annotation file", f"two categories have the id {category['id']}"
        else:
            names[category["id"]] = category["name"]
    part.classes = {id_: names[id_] for id_ in sorted(names)}


def _read_images(part: Annotations, images: list[Any]) -> Iterator[KindAndNote]:
    """Fill in the images; yield any problems."""
    keys = set()
    for number, image in enumerate(images, 1):
        if fault := _record_fault(image, IMAGE):
            yield "annotation file", f"image number {number} {fault}"
        elif not all(0 < image[side] <= MAX_PIXEL for side in ("width", "height")):
            size = f"{image['width']} x {image['height']}"
            yield "annotation file", f"image {image['id']!r} has an invalid size: {size}"
        elif image["id"] in keys:
            yield "annotation file", f"two images have the id {image['id']}"
        else:
            keys.add(image["id"])
            part.keys.append(image["id"])
            part.files.append(image["file_name"])
            part.sizes.append((image["width"], image["height"]))


def _add_annotation(
    objects: Objects, annotation: Any, number: int, rows: dict[int | str, int]
) -> list[KindAndNote]:
    """Append one annotation to the columns, or return its problems."""
    if fault := _record_fault(annotation, ANNOTATION):
        return [("annotation file", f"annotation number {number} {fault}")]
    id_ = annotation.get("id", number)
    image = annotation["image_id"]
    if image not in rows:
        note = f"annotation {id_} refers to image {image!r}, which is not listed"
        return [("unknown image", note)]
    box = annotation["bbox"]
    is_box = len(box) == 4 and all(isinstance(value, (int, float)) for value in box)
    if not is_box or not all(abs(value) <= MAX_PIXEL for value in box):
        box = [NAN] * 4
    x, y, width, height = box
    area = annotation.get("area")
    is_area = isinstance(area, (int, float)) and 0 <= area <= MAX_PIXEL**2
    objects.images.append(rows[image])
    objects.names.append(annotation["category_id"])
    objects.boxes.append((x, y, x + width, y + height))
    objects.places.append(id_)
    objects.difficult.append(False)
    objects.crowd.append(bool(annotation.get("iscrowd", 0)))
    objects.areas.append(area if is_area else width * height)
    return []


def _image_folder(path: Path, folder: Path, part: Annotations) -> Path:
    """Return the first candidate folder that has the first image, or else the first candidate."""
    stem = re.sub(r"^(instances|annotations)_?", "", path.stem)  # train2017
    names = [name for name in (stem, f"images/{stem}", "images", "pictures") if name]
    places = [folder / name for name in names if (folder / name).is_dir()]
    places += [path.parent] if path.parent.name != "annotations" else []
    places.append(folder)
    for file in part.files[:1]:
        for place in places:
            if os.path.isfile(place / file):
                return place
    return places[0]
