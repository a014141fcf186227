"""Read COCO instances: a JSON file of images, categories and boxes, beside image folders."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reslab.data.boxes.annotations import Annotations, Objects
from reslab.data.boxes.coco_records import RecordReader
from reslab.data.boxes.image_files import place_images
from reslab.data.boxes.outlines import with_outline_box
from reslab.errors import os_reason

ANNOTATION_FILE = re.compile(r"(instances(?!.*result).*|annotations|_annotations\.coco)\.json")
IN_ANNOTATIONS = re.compile(ANNOTATION_FILE.pattern + r"|(train|val|test)[^/]*\.json")
LISTS = ("images", "annotations", "categories")
COCO_TRAIN = ("train", "training")
COCO_TEST = ("val", "valid", "validation", "test")


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


def read_coco(path: Path, folder: Path, name: str, *, find_images: bool = True) -> Annotations:
    """Read one annotation file of the data set in `folder`, and collect its problems.

    Without `find_images`, the images' names stay as written. Raises ValueError if the file is not
    JSON with the three lists of COCO instances.
    """
    shown = str(path.relative_to(folder) if path.is_relative_to(folder) else path)
    objects = Objects()
    part = Annotations(
        "COCO", name, folder, lambda row: f"{shown}: annotation {objects.places[row]}",
        objects=objects,
    )  # fmt: skip
    _read_records(path, RecordReader(part, shown))
    if find_images:
        place_images(part, image_places(path, folder), shown)
    return part


def _read_records(path: Path, reader: RecordReader) -> None:
    """Read the records, and free the document, which is several times larger than its columns."""
    document = _read_lists(path)
    reader.categories(document["categories"])
    reader.images(document["images"])
    reader.objects(document["annotations"])


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


def _read_lists(path: Path) -> dict[str, list[Any]]:
    document = read_json(path, object_hook=with_outline_box)
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


def image_places(path: Path, folder: Path) -> list[Path]:
    """Return the folders where the images of an annotation file may lie, most likely first."""
    stem = re.sub(r"^(instances|annotations)_?", "", path.stem)  # train2017
    names = [name for name in (stem, f"images/{stem}", "images", "pictures") if name]
    places = [folder / name for name in names if (folder / name).is_dir()]
    places += [path.parent] if path.parent.name != "annotations" else []
    return [*places, folder]
