"""Apply a model to a user's images: predict classes, or detect objects and draw their boxes."""

import json
import os
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from reslab.api.evaluate import set_precision

if TYPE_CHECKING:
    from PIL import Image

    from reslab.data.decode import BadImage
    from reslab.detection.predict import DetectedImage, Detection
    from reslab.evaluation.predict import Prediction


Result = TypeVar("Result")  # predictions or detections

STDIN = "-"
STDIN_NAME = "standard-input"  # file name of its drawing
LIST = "detections.json"
JPEG = (".jpg", ".jpeg", ".jpe")
JPEG_QUALITY = 92  # without chroma subsampling, because box outlines are thin
PNG_COMPRESSION = 3  # half the time of the default 6 for slightly larger files


@dataclass(frozen=True)
class InputImage:
    """An image given by the user, or found in a folder given by the user."""

    file: str  # path as opened and printed, or STDIN
    folder: str | None = None  # the folder it was found in; None if the image itself was given

    @property
    def name(self) -> str:
        """The file relative to its folder, or as given."""
        return os.path.relpath(self.file, self.folder) if self.folder else self.file

    @property
    def source(self) -> str | bytes:
        return sys.stdin.buffer.read() if self.file == STDIN else self.file

    def reason(self, error: "BadImage") -> str:
        """Return why the image is bad, without its name."""
        from reslab.data.decode import UNNAMED

        return str(error).removeprefix(f"{UNNAMED if self.file == STDIN else self.file}: ")


@dataclass(frozen=True)
class Answer(Generic[Result]):
    """A model's results on an image, or why the image is bad."""

    file: str
    results: Sequence[Result] = ()
    error: str | None = None


def find_images(paths: Sequence[str]) -> tuple[list[InputImage], int]:
    """Return the images, files as given and folders searched in order, and the number left out.

    Files in folders are left out if their suffix is not an image's.
    """
    from reslab.data.decode import IMAGE_SUFFIXES

    if paths.count(STDIN) > 1:
        raise ValueError("- stands twice; standard input holds one image")
    images: list[InputImage] = []
    left_out = 0
    for path in paths:
        if path == STDIN or not os.path.isdir(path):
            images.append(InputImage(path))
            continue
        before = len(images)
        for folder, subfolders, names in os.walk(path):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            files = sorted(name for name in names if not name.startswith("."))
            chosen = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
            left_out += len(files) - len(chosen)
            images += [InputImage(os.path.join(folder, name), path) for name in chosen]
        if len(images) == before:
            raise ValueError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return images, left_out


def predict(
    model: Path,
    images: Sequence[InputImage],
    *,
    top: int = 5,
    protocol: str = "one-crop",
    precision: str = "fp32",
) -> "Iterator[Answer[Prediction]]":
    """Yield the `top` most probable classes of each image, one image after another."""
    from reslab.data.decode import BadImage
    from reslab.evaluation.predict import Predictor
    from reslab.models.model_file import load_model
    from reslab.runtime.device import setup_device

    loaded = set_precision(load_model(model), precision)
    predictor = Predictor(loaded.to(setup_device("fp32").torch_device))
    sources = (image.source for image in images)
    results = predictor.each(sources, top=top, protocol=protocol)
    return (
        Answer(image.file, error=image.reason(result))
        if isinstance(result, BadImage)
        else Answer(image.file, result)
        for image, result in zip(images, results, strict=True)
    )


def detect(
    model: Path,
    images: Sequence[InputImage],
    drawings: "DrawingFolder | None" = None,
    *,
    threshold: float,
    refine: bool = False,
    scales: Sequence[int] | None = None,
) -> "Generator[Answer[Detection]]":
    """Yield the objects in each image, one image after another; add drawings to `drawings`."""
    from reslab.detection.predict import load_detector_predictor
    from reslab.runtime.device import setup_device

    predictor = load_detector_predictor(
        model, threshold=threshold, refine=refine or None, scales=scales or None
    )
    predictor = predictor.to(setup_device("fp32").torch_device)
    results = predictor.each_image(image.source for image in images)
    return detected(images, results, drawings, predictor.classes)


def detected(
    images: Sequence[InputImage],
    results: "Iterable[DetectedImage | BadImage]",
    drawings: "DrawingFolder | None",
    classes: Sequence[str],
) -> "Generator[Answer[Detection]]":
    from reslab.data.decode import BadImage

    for image, result in zip(images, results, strict=True):
        if isinstance(result, BadImage):
            yield Answer(image.file, error=image.reason(result))
            continue
        if drawings:
            drawings.add(image, result, classes)
        yield Answer(image.file, result.objects)


@dataclass
class DrawingFolder:
    """A folder with drawings of the detected objects, and a list of all objects."""

    out: Path
    targets: dict[str, Path]  # each image's file -> its drawing
    ids: dict[str, str]  # each image's file -> its id in the list
    rows: list[dict[str, Any]] = field(default_factory=list)
    drawn: int = 0

    def add(self, image: InputImage, result: "DetectedImage", classes: Sequence[str]) -> None:
        """Write the drawing of an image, and record its objects for the list."""
        from reslab.detection.drawing import draw_detections
        from reslab.runtime.files import atomic_write

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
        from reslab.runtime.files import atomic_write

        lines = ",\n".join(json.dumps(row) for row in self.rows)
        atomic_write(self.out / LIST, f"[\n{lines}\n]\n".encode())


def open_drawing_folder(out: Path, images: Sequence[InputImage]) -> DrawingFolder:
    """Create the folder; raise ValueError if it would replace a file of another origin."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    targets = drawing_paths(images, out)
    sources = {os.path.realpath(image.file) for image in images if image.file != STDIN}
    for target in targets.values():
        if os.path.realpath(target) in sources:
            raise ValueError(f"--out {out} would overwrite {target} itself; name another folder")
        if target.exists() and not (out / LIST).exists():
            raise ValueError(
                f"{target} is there already, and {out} has no {LIST} of an earlier call; "
                "name another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
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
        raise ValueError(f"--out {out} is where the images lie; name another folder")
    return kept


def encode(image: "Image.Image", suffix: str) -> bytes:
    file = BytesIO()
    if suffix.lower() in JPEG:
        image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(file, "PNG", compress_level=PNG_COMPRESSION)
    return file.getvalue()


def detection_row(image: str, detection: "Detection") -> dict[str, Any]:
    """Return a detection in COCO's results format; a numeric category id becomes an int."""
    x0, y0, x1, y1 = detection.box
    is_number = detection.id.isdecimal() and str(int(detection.id)) == detection.id
    return {
        "image_id": image,
        "category_id": int(detection.id) if is_number else detection.id,
        "bbox": [round(side, 2) for side in (x0, y0, x1 - x0, y1 - y0)],
        "score": round(detection.score, 6),
    }
