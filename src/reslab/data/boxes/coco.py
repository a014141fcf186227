"""Read COCO instances: a JSON file of images, categories and boxes, beside image folders."""

from pathlib import Path
from typing import Any

from reslab.data.boxes.annotations import Annotations, Objects
from reslab.data.boxes.coco_files import coco_part, image_places
from reslab.data.boxes.coco_records import RecordReader
from reslab.data.boxes.image_files import place_images
from reslab.data.boxes.outlines import with_outline_box
from reslab.runtime.files import read_json

LISTS = ("images", "annotations", "categories")


def read_coco(path: Path, folder: Path, name: str, *, find_images: bool = True) -> Annotations:
    """Read one annotation file of the data set in `folder`, and collect its problems.

    Without `find_images`, the images' names stay as written. Raise ValueError if the file is not
    JSON with the three lists of COCO instances.
    """
    shown = str(path.relative_to(folder) if path.is_relative_to(folder) else path)
    objects = Objects()
    part = Annotations(
        "COCO", name, folder, lambda row: f"{shown}: annotation {objects.places[row]}",
        objects=objects, source=shown,
    )  # fmt: skip
    _read_records(path, RecordReader(part, shown))
    if find_images:
        places = image_places(path, folder, part.files)
        place_images(part, places, shown, coco_part(path, folder))
    return part


def _read_records(path: Path, reader: RecordReader) -> None:
    """Read the records, and free the document, which is several times larger than its columns."""
    document = _read_lists(path)
    reader.categories(document["categories"])
    reader.images(document["images"])
    reader.objects(document["annotations"])


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
