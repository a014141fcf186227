"""Drawings of the objects detected in a user's images, and a list of all objects."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from reslab.api.inputs import STDIN, InputImage
from reslab.detection.drawing import draw_detections
from reslab.detection.predict import DetectedImage, Detection
from reslab.runtime.files import to_json
from reslab.runtime.writing import atomic_write, prepare_folder

STDIN_NAME = "standard-input"  # file name of its drawing
LIST = "detections.json"
JPEG = (".jpg", ".jpeg", ".jpe")
JPEG_QUALITY = 92  # without chroma subsampling, because box outlines are thin
PNG_COMPRESSION = 3  # half the time of the default 6 for slightly larger files


@dataclass
class DrawingFolder:
    """A folder with drawings of the detected objects, and a list of all objects."""

    out: Path
    targets: dict[str, Path]  # each image's file -> its drawing
    ids: dict[str, str]  # each image's file -> its id in the list
    rows: list[dict[str, Any]] = field(default_factory=list)
    drawn: int = 0

    def add(self, image: InputImage, result: DetectedImage, classes: Sequence[str]) -> None:
        """Write the drawing of an image, and record its objects for the list."""
        target = self.targets[image.file]
        target.parent.mkdir(parents=True, exist_ok=True)
        drawing = draw_detections(result.pixels, result.detections, classes)
        atomic_write(target, encode(drawing, target.suffix))
        self.rows += [
            detection_row(self.ids[image.file], detection) for detection in result.objects
        ]
        self.drawn += 1

    def finish(self) -> None:
        """Write the list of all objects in COCO's results format."""
        lines = ",\n".join(to_json(row) for row in self.rows)
        atomic_write(self.out / LIST, f"[\n{lines}\n]\n".encode())


def open_drawing_folder(out: Path, images: Sequence[InputImage]) -> DrawingFolder:
    """Create the folder; raise ValueError if a file that is not a drawing would be replaced."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"`out` {out} is a file; name a folder")
    targets = drawing_paths(images, out)
    sources = {os.path.realpath(image.file) for image in images if image.file != STDIN}
    for target in targets.values():
        if os.path.realpath(target) in sources:
            raise ValueError(f"`out` {out} would overwrite {target} itself; name another folder")
        if target.exists() and not (out / LIST).exists():
            raise ValueError(
                f"{target} exists already, and {out} has no {LIST} from an earlier call; "
                "name another folder with `out`"
            )
    prepare_folder(out)
    counts = Counter(image.name for image in images)
    ids = {image.file: image.name if counts[image.name] == 1 else image.file for image in images}
    return DrawingFolder(out, targets, ids)


def drawing_paths(images: Sequence[InputImage], out: Path) -> dict[str, Path]:
    """Return the path of each image's drawing: the image's name, with a number if it is taken.

    Drawings of JPEG files are JPEG, all others are PNG.
    """
    taken: set[str] = set()
    targets = {}
    for image in images:
        name = Path(image.name if image.folder else os.path.basename(image.file))
        if image.file == STDIN:
            name = Path(STDIN_NAME)
        if name.suffix.lower() not in JPEG:
            name = name.with_suffix(".png")
        free, number = name, 1
        while str(free).casefold() in taken:  # a.png and A.png are the same file on some systems
            number += 1
            free = name.with_stem(f"{name.stem}-{number}")
        taken.add(str(free).casefold())
        targets[image.file] = out / free
    return targets


def without_drawings(images: Sequence[InputImage], out: Path) -> list[InputImage]:
    """Leave out the drawings from an earlier call, if `out` is inside a folder of images."""
    drawings = Path(os.path.realpath(out))

    def is_drawing(image: InputImage) -> bool:
        if image.folder is None or not drawings.is_relative_to(os.path.realpath(image.folder)):
            return False
        return Path(os.path.realpath(image.file)).is_relative_to(drawings)

    kept = [image for image in images if not is_drawing(image)]
    if not kept:
        raise ValueError(f"`out` {out} is the folder of the images; name another")
    return kept


def encode(image: Image.Image, suffix: str) -> bytes:
    file = BytesIO()
    if suffix.lower() in JPEG:
        image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(file, "PNG", compress_level=PNG_COMPRESSION)
    return file.getvalue()


def detection_row(image: str, detection: Detection) -> dict[str, Any]:
    """Return a detection in COCO's results format; a numeric category id becomes an int."""
    x0, y0, x1, y1 = detection.box
    is_number = detection.id.isdecimal() and str(int(detection.id)) == detection.id
    return {
        "image_id": image,
        "category_id": int(detection.id) if is_number else detection.id,
        "bbox": [round(side, 2) for side in (x0, y0, x1 - x0, y1 - y0)],
        "score": round(detection.score, 6),
    }
