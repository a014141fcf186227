"""COCO's instances: a JSON of images, categories and boxes beside folders of images."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reslab.data.boxes.annotations import Annotations, Objects
from reslab.data.folder import Problem
from reslab.errors import os_reason

ANNOTATION_FILE = re.compile(r"(instances(?!.*result).*|annotations|_annotations\.coco)\.json")
IN_ANNOTATIONS = re.compile(ANNOTATION_FILE.pattern + r"|(train|val|test)[^/]*\.json")
LISTS = ("images", "annotations", "categories")
COCO_TEST = ("val", "valid", "validation", "test")
COCO_TRAIN = ("train", "training")
NAN = float("nan")
MAX_PIXEL = 2**24  # float32 counts every pixel up to here


def find_coco(folder: Path) -> list[Path]:
    """The annotation files: in annotations/, the folder itself, or its train/, val/, test/."""
    found = _annotation_files(folder / "annotations", IN_ANNOTATIONS)
    for place in (folder, *(folder / name for name in COCO_TRAIN + COCO_TEST)):
        found += _annotation_files(place, ANNOTATION_FILE)
    return found


def _annotation_files(place: Path, names: re.Pattern[str]) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if names.fullmatch(path.name))


def part_of(path: Path) -> str:
    """train, val, test, or whole: by the file's name, or by its folder's (Roboflow's layout)."""
    for name in (path.stem, path.parent.name):
        for part in (*COCO_TRAIN, *COCO_TEST):
            if re.search(rf"(^|[_-]){part}(\d{{4}})?($|[_-])", name):
                return "train" if part in COCO_TRAIN else "test" if part == "test" else "val"
    return "whole"


def year_of(path: Path) -> str:
    """2014 of instances_train2014.json; nothing where there is none."""
    found = re.search(r"(?<!\d)(19|20)\d\d(?!\d)", path.stem)
    return found.group() if found else ""


def read_coco(path: Path, folder: Path, name: str) -> Annotations:
    """One annotation file as it is. `folder` is that of the whole data set."""
    document = _load(path)
    shown = path.relative_to(folder) if path.is_relative_to(folder) else path
    objects = Objects()
    part = Annotations(
        name, folder, lambda at: f"{shown}: annotation {objects.places[at]}", {}, objects=objects
    )

    def fault(kind: str, note: str) -> None:
        part.faults.append(Problem(kind, str(shown), note))

    for number, category in enumerate(document["categories"]):
        lacks = _lacking(category, {"id": int, "name": str})
        if lacks:
            fault("annotation file", f"category number {number + 1} {lacks}")
        elif category["id"] in part.classes:
            fault("annotation file", f"two categories have the id {category['id']}")
        else:
            part.classes[category["id"]] = category["name"]
    part.classes = dict(sorted(part.classes.items()))

    rows = {}
    for number, image in enumerate(document["images"]):
        lacks = _lacking(image, {"id": (int, str), "file_name": str, "width": int, "height": int})
        if lacks:
            fault("annotation file", f"image number {number + 1} {lacks}")
        elif not all(0 < image[side] <= MAX_PIXEL for side in ("width", "height")):
            fault("annotation file", f"image {image['id']!r} has no size")
        elif image["id"] in rows:
            fault("annotation file", f"two images have the id {image['id']}")
        else:
            rows[image["id"]] = len(rows)
            part.keys.append(image["id"])
            part.files.append(image["file_name"])
            part.sizes.append((image["width"], image["height"]))
    for number, annotation in enumerate(document["annotations"]):
        for kind, note in _add_annotation(objects, annotation, number, rows):
            fault(kind, note)
    part.root = _image_folder(path, folder, part)
    return part


def _load(path: Path) -> dict[str, list[Any]]:
    """The three lists. Outlines are dropped as they are parsed: they are nine tenths of a file."""

    def without_outline(found: dict[str, Any]) -> dict[str, Any]:
        found.pop("segmentation", None)
        return found

    try:
        document = json.loads(path.read_bytes(), object_hook=without_outline)
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply for COCO's annotations") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: malformed JSON: {error.msg}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: a list, not COCO's instances with {', '.join(LISTS)}")
    for name in LISTS:
        if not isinstance(document.get(name), list):
            state = "is no list" if name in document else "is missing"
            raise ValueError(f"{path}: {name!r} {state}; COCO's instances have {', '.join(LISTS)}")
    return document


def _lacking(found: Any, keys: dict[str, Any]) -> str:
    """What a record lacks, in words; nothing for a good one."""
    if not isinstance(found, dict):
        return "is no object"
    for key, kind in keys.items():
        if key not in found:
            return f"has no {key!r}"
        if not isinstance(found[key], kind) or isinstance(found[key], bool):
            return f"has {found[key]!r} as its {key!r}"
    return ""


def _add_annotation(
    objects: Objects, annotation: Any, number: int, rows: dict[int | str, int]
) -> Iterator[tuple[str, str]]:
    """Puts one annotation into the columns, or says what is wrong with it."""
    lacks = _lacking(annotation, {"image_id": (int, str), "category_id": int, "bbox": list})
    if lacks:
        yield "annotation file", f"annotation number {number + 1} {lacks}"
        return
    id_ = annotation.get("id", number + 1)
    image = annotation["image_id"]
    if image not in rows:
        yield "unknown image", f"annotation {id_} is of image {image!r}, which is not listed"
        return
    box = annotation["bbox"]
    known = len(box) == 4 and all(isinstance(value, (int, float)) for value in box)
    if not known or not all(abs(value) <= MAX_PIXEL for value in box):
        box = [NAN] * 4
    x, y, width, height = box
    objects.images.append(rows[image])
    objects.names.append(annotation["category_id"])
    objects.boxes.append((x, y, x + width, y + height))
    objects.places.append(id_)
    objects.difficult.append(False)
    objects.crowd.append(bool(annotation.get("iscrowd", 0)))
    area = annotation.get("area")
    known = isinstance(area, (int, float)) and 0 <= area <= MAX_PIXEL**2
    objects.areas.append(area if known else width * height)


def _image_folder(path: Path, folder: Path, part: Annotations) -> Path:
    """The first of the usual places where the first image lies, or the first that is there."""
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
