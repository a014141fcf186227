"""Images for a page: what is true of them beside what detectors found in them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.data.decode import BadImage
from reslab.detection.average_precision.measure import AveragePrecision, measure
from reslab.detection.average_precision.results import read_results
from reslab.detection.drawing import draw_detections
from reslab.detection.predict import SHOWN_SCORE
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import OpenedSets, open_detection_data
from reslab.detection.task import DETECTIONS_FILE
from reslab.evaluation.mistakes import INLINE
from reslab.studies.records import Detectors, Record

ALBUM_IMAGES = 8  # images
SOURCE_SIDE = 480  # pixels of an image's longer side before it is drawn on
PAGE_SIDE = 400  # and after: as large as a page shows it
ALBUM_QUALITY = 88  # of JPEG, with colours as fine as brightness: boxes are thin


ImageSource = tuple[str, str | None, str, float]  # that the images of a recipe come from


@dataclass(frozen=True)
class FinalDetections:
    """What a run found at its end, image by image."""

    label: str
    images: DetectionSet
    found: Sequence[Detections]
    protocol: str  # of `measure`

    @property
    def precision(self) -> AveragePrecision:
        """Measured again, with curves."""
        return measure(self.images, self.found, self.protocol)


@dataclass(frozen=True)
class AlbumRow:
    """One image in several drawings, as data: addresses."""

    file: str
    images: Sequence[str]


@dataclass(frozen=True)
class Album:
    """Images under each other, drawings of one beside each other."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[AlbumRow]


def albums_of(known: Sequence[FinalDetections]) -> list[Album]:
    """One for each set of images, in the order in which they first appear."""
    families: list[list[FinalDetections]] = []
    for it in known:
        family = next((f for f in families if f[0].images.files == it.images.files), None)
        if family is None:
            families.append([it])
        else:
            family.append(it)
    return [album_of(family) for family in families]


def album_of(family: Sequence[FinalDetections]) -> Album:
    """The first images of a set, not chosen by how well they went."""
    images = family[0].images
    rows = []
    for index in range(len(images)):
        if len(rows) == ALBUM_IMAGES:
            break
        try:
            rows.append(album_row(index, images, family))
        except (BadImage, OSError):
            continue
    return Album(
        title="What is found",
        note=f"The first {len(rows)} of the {len(images):,} images of {images.name}, not "
        f"chosen, with the boxes whose score is {SHOWN_SCORE} or more.",
        columns=["truth", *(it.label for it in family)],
        rows=rows,
    )


def album_row(index: int, images: DetectionSet, family: Sequence[FinalDetections]) -> AlbumRow:
    """Truth, then what each has found."""
    pixels = images.image(index)
    truth = images.truths[index]
    true = Detections(truth.boxes, torch.ones(len(truth)), truth.labels)
    drawings = [draw_image(pixels, true, images.classes, scores=False)]
    for it in family:
        found = it.found[index]
        drawings.append(draw_image(pixels, found.take(found.scores >= SHOWN_SCORE), images.classes))
    return AlbumRow(images.files[index], drawings)


def draw_image(
    pixels: np.ndarray, found: Detections, classes: Sequence[str], *, scores: bool = True
) -> str:
    """An image, RGB uint8 [H, W, 3], with its boxes, of a page's size, as a data: address."""
    image = Image.fromarray(pixels)
    image.thumbnail((SOURCE_SIDE, SOURCE_SIDE))
    ratio = torch.tensor([image.width / pixels.shape[1], image.height / pixels.shape[0]] * 2)
    found = Detections(found.boxes * ratio, found.scores, found.labels)
    drawing = draw_detections(np.asarray(image), found, classes, scores=scores)
    drawing.thumbnail((PAGE_SIDE, PAGE_SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    drawing.save(data, "JPEG", quality=ALBUM_QUALITY, subsampling=0)
    return INLINE[1] + base64.b64encode(data.getvalue()).decode()


def final_detections(
    groups: Sequence[Detectors], labels: Sequence[str]
) -> tuple[list[FinalDetections], list[str]]:
    """Of the first run of each recipe; and why it is not known of others, whose images may have
    gone."""
    opened: dict[ImageSource, OpenedSets] = {}  # runs on one page are mostly of the same images
    known: list[FinalDetections] = []
    reasons: list[str] = []
    for group, label in zip(groups, labels, strict=True):
        try:
            known.append(searched_by(group.first, label, opened))
        except (OSError, ValueError) as error:
            reasons.append(f"{label}: {error}")
    return known, reasons


def searched_by(
    record: Record[DetectionRecipe], label: str, opened: dict[ImageSource, OpenedSets]
) -> FinalDetections:
    """Of one run; ValueError or OSError if its images are not those of its test any more."""
    folder, recipe = record.environment["data"], record.recipe
    place = (recipe.data, folder, recipe.years, recipe.validation)
    if place not in opened:
        opened[place] = open_detection_data(recipe, Path(folder) if folder else None)
    images, protocol = opened[place].sets.test, opened[place].protocol
    count = record.report["n"]
    if len(images) != count:
        raise ValueError(f"it was tested on {count} images, there are {len(images)} now")
    return FinalDetections(
        label, images, read_results(record.path / DETECTIONS_FILE, images), protocol
    )
