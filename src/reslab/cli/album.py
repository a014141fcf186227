"""A folder of images with what was found drawn on them, and a list of it."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reslab.cli.files import STDIN, InputFile

if TYPE_CHECKING:
    from PIL import Image

    from reslab.detection.predict import DetectedImage, Detection


LIST = "detections.json"
FROM_STDIN = "standard-input"
JPEG = (".jpg", ".jpeg", ".jpe")
DRAWING_QUALITY = 92  # of JPEG; its colours at full size, for the lines of boxes are thin
COMPRESSION = 3  # of PNG: half the time of the usual 6, a little larger


@dataclass
class DrawingFolder:
    """Where what is seen is drawn and listed."""

    out: Path
    targets: dict[str, Path]  # each image's file -> the file with boxes
    ids: dict[str, str]  # each image's file -> what the list calls it
    rows: list[dict[str, Any]] = field(default_factory=list)
    drawn: int = 0

    def add(self, given: InputFile, seen: "DetectedImage", classes: Sequence[str]) -> None:
        """Draw an image, whole or not at all, and keep what is to be listed."""
        from reslab.detection.drawing import draw_detections
        from reslab.runtime.files import atomic_write

        target = self.targets[given.file]
        target.parent.mkdir(parents=True, exist_ok=True)
        image = draw_detections(seen.pixels, seen.detections, classes)
        atomic_write(target, encoded(image, target.suffix))
        self.rows += [detection_row(self.ids[given.file], it) for it in seen.objects]
        self.drawn += 1

    def finish(self) -> None:
        """The list of all that was found, as COCO writes results."""
        from reslab.runtime.files import atomic_write

        lines = ",\n".join(json.dumps(row) for row in self.rows)
        atomic_write(self.out / LIST, f"[\n{lines}\n]\n".encode())


def open_drawing_folder(out: Path, given: Sequence[InputFile]) -> DrawingFolder:
    """The folder, made if need be; ValueError if something of another's would be overwritten."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    targets = targets_of(given, out)
    sources = {os.path.realpath(it.file) for it in given if it.file != STDIN}
    for target in targets.values():
        if os.path.realpath(target) in sources:
            raise ValueError(f"--out {out} would overwrite {target} itself; name another folder")
        if target.exists() and not (out / LIST).exists():
            raise ValueError(
                f"{target} is there already, and {out} has no {LIST} of an earlier call; "
                "name another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    times = Counter(it.name for it in given)
    ids = {it.file: it.name if times[it.name] == 1 else it.file for it in given}
    return DrawingFolder(out, targets, ids)


def targets_of(given: Sequence[InputFile], out: Path) -> dict[str, Path]:
    """Where each image is drawn: under its name in its folder, with a number if that is taken.

    JPEG stays JPEG, all else becomes PNG.
    """
    taken: set[str] = set()
    targets = {}
    for it in given:
        name = Path(it.name if it.folder else os.path.basename(it.file))
        if it.file == STDIN:
            name = Path(FROM_STDIN)
        if name.suffix.lower() not in JPEG:
            name = name.with_suffix(".png")
        free, number = name, 1
        while str(free).casefold() in taken:  # some systems hold a.png and A.png for the same
            number += 1
            free = name.with_stem(f"{name.stem}-{number}")
        taken.add(str(free).casefold())
        targets[it.file] = out / free
    return targets


def without_drawn(given: Sequence[InputFile], out: Path) -> list[InputFile]:
    """The images but for those that an earlier call drew, where `out` lies in their folder."""
    here = Path(os.path.realpath(out))

    def is_drawn(it: InputFile) -> bool:
        if it.folder is None or not here.is_relative_to(os.path.realpath(it.folder)):
            return False
        return Path(os.path.realpath(it.file)).is_relative_to(here)

    kept = [it for it in given if not is_drawn(it)]
    if not kept:
        raise ValueError(f"--out {out} is where the images lie; name another folder")
    return kept


def encoded(image: "Image.Image", suffix: str) -> bytes:
    """An image as the file of this suffix."""
    out = BytesIO()
    if suffix.lower() in JPEG:
        image.save(out, "JPEG", quality=DRAWING_QUALITY, subsampling=0)
    else:
        image.save(out, "PNG", compress_level=COMPRESSION)
    return out.getvalue()


def detection_row(image: str, found: "Detection") -> dict[str, Any]:
    """One detection as COCO writes it; ids that are numbers are numbers there."""
    x0, y0, x1, y1 = found.box
    number = found.id.isdecimal() and str(int(found.id)) == found.id
    return {
        "image_id": image,
        "category_id": int(found.id) if number else found.id,
        "bbox": [round(side, 2) for side in (x0, y0, x1 - x0, y1 - y0)],
        "score": round(found.score, 6),
    }
