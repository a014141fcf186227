"""Images for a page: what is true of them beside what detectors found in them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.data.decode import BadImage
from reslab.detection.drawing import draw_detections
from reslab.detection.predict import SHOWN_SCORE
from reslab.evaluation.mistakes import INLINE
from reslab.studies.detection import FinalDetections

ALBUM_IMAGES = 8  # images
SOURCE_SIDE = 480  # pixels of an image's longer side before it is drawn on
PAGE_SIDE = 400  # and after: as large as a page shows it
ALBUM_QUALITY = 88  # of JPEG, with colours as fine as brightness: boxes are thin


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
