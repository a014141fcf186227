"""Pictures for a page: what is true of them beside what detectors found in them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.data.decode import BadPicture
from reslab.detection.drawing import draw
from reslab.detection.predict import SURE
from reslab.evaluation.mistakes import INLINE
from reslab.studies.detection import Searched

SHOWN = 8  # pictures
LARGEST = 480  # pixels of a picture's longer side before it is drawn on
SIDE = 400  # and after: as large as a page shows it
QUALITY = 88  # of JPEG, with colours as fine as brightness: boxes are thin


@dataclass(frozen=True)
class Row:
    """One picture in several drawings, as data: addresses."""

    file: str
    pictures: Sequence[str]


@dataclass(frozen=True)
class Album:
    """Pictures under each other, drawings of one beside each other."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Row]


def albums_of(known: Sequence[Searched]) -> list[Album]:
    """One for each set of pictures, in the order in which they first appear."""
    families: list[list[Searched]] = []
    for it in known:
        family = next((f for f in families if f[0].pictures.files == it.pictures.files), None)
        if family is None:
            families.append([it])
        else:
            family.append(it)
    return [album_of(family) for family in families]


def album_of(family: Sequence[Searched]) -> Album:
    """The first pictures of a set, not chosen by how well they went."""
    pictures = family[0].pictures
    rows = []
    for index in range(len(pictures)):
        if len(rows) == SHOWN:
            break
        try:
            rows.append(row_of(index, pictures, family))
        except (BadPicture, OSError):
            continue
    return Album(
        title="What is found",
        note=f"The first {len(rows)} of the {len(pictures):,} pictures of {pictures.name}, not "
        f"chosen, with the boxes whose score is {SURE} or more.",
        columns=["truth", *(it.label for it in family)],
        rows=rows,
    )


def row_of(index: int, pictures: DetectionSet, family: Sequence[Searched]) -> Row:
    """Truth, then what each has found."""
    pixels = pictures.picture(index)
    truth = pictures.truths[index]
    true = Detections(truth.boxes, torch.ones(len(truth)), truth.labels)
    drawings = [drawn(pixels, true, pictures.classes, scores=False)]
    for it in family:
        found = it.found[index]
        drawings.append(drawn(pixels, found.take(found.scores >= SURE), pictures.classes))
    return Row(pictures.files[index], drawings)


def drawn(
    pixels: np.ndarray, found: Detections, classes: Sequence[str], *, scores: bool = True
) -> str:
    """A picture, RGB uint8 [H, W, 3], with its boxes, of a page's size, as a data: address."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((LARGEST, LARGEST))
    ratio = torch.tensor([picture.width / pixels.shape[1], picture.height / pixels.shape[0]] * 2)
    found = Detections(found.boxes * ratio, found.scores, found.labels)
    drawing = draw(np.asarray(picture), found, classes, scores=scores)
    drawing.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    drawing.save(data, "JPEG", quality=QUALITY, subsampling=0)
    return INLINE[1] + base64.b64encode(data.getvalue()).decode()
