"""Create tiny folders of images with boxes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reslab.data.boxes.build import detection_set
from reslab.data.boxes.folder import evaluation_part, read_annotations
from reslab.data.boxes.sets import DetectionSet

Document = dict[str, Any]
WIDTH, HEIGHT = 40, 30


def image(path: Path, seed: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def document() -> Document:
    """Return COCO instances: three images, one without boxes, and unordered category ids."""
    return {
        "images": [
            {"id": 5, "file_name": "five.png", "width": WIDTH, "height": HEIGHT},
            {"id": 3, "file_name": "three.png", "width": WIDTH, "height": HEIGHT},
            {"id": 9, "file_name": "nine.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 7.5},
            {"id": 2, "image_id": 5, "category_id": 4, "bbox": [0, 0, 40, 30], "iscrowd": 1,
             "segmentation": {"size": [30, 40], "counts": [0, 1200]}},
            {"id": 3, "image_id": 3, "category_id": 4, "bbox": [10.5, 5, 20, 20.25],
             "iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 4, "name": "car"}],
    }  # fmt: skip


def plant_coco(folder: Path, change: Callable[[Document], object] = lambda doc: None) -> Path:
    """Create a folder with instances.json and images/."""
    made = document()
    for number, name in enumerate(("five", "three", "nine")):
        image(folder / "images" / f"{name}.png", number)
    change(made)
    (folder / "instances.json").write_text(json.dumps(made))
    return folder


XmlObject = tuple[str, Sequence[float], str]  # the class, VOC's corners, more XML


def sheet(*objects: XmlObject, size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    marked = "".join(
        f"\n<object><name>{name}</name>{more}\n<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1), more in objects
    )
    width, height = size
    return (
        f"<annotation>\n<size><width>{width}</width><height>{height}</height><depth>3</depth>"
        f"</size>{marked}\n</annotation>\n"
    )


CAT: XmlObject = ("cat", (1, 1, 40, 30), "")
DOG: XmlObject = ("dog", (3, 4, 10, 12), "<truncated>1</truncated><difficult>1</difficult>")


def plant_voc(home: Path, sheets: dict[str, str], **lists: Sequence[str]) -> Path:
    """Create Annotations/, JPEGImages/, and the lists of the splits."""
    (home / "Annotations").mkdir(parents=True)
    (home / "ImageSets" / "Main").mkdir(parents=True)
    for number, (key, text) in enumerate(sheets.items()):
        image(home / "JPEGImages" / f"{key}.jpg", hash_of(key) + number)
        (home / "Annotations" / f"{key}.xml").write_text(text)
    for part, keys in lists.items():
        text = "".join(f"{key}\n" for key in keys)
        (home / "ImageSets" / "Main" / f"{part}.txt").write_text(text)
    return home


def hash_of(key: str) -> int:
    return sum(key.encode()) * 100


def open_whole(folder: Path, years: str = "") -> DetectionSet:
    """Open an unsplit folder as one set, or the test split of a split folder."""
    return detection_set(evaluation_part(read_annotations(folder, years)))
