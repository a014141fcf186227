"""The most confident mistakes of an evaluation, each with a small image that a page can hold."""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from reslab.data.datasets import EncodedImages, ImagesInMemory
from reslab.evaluation.report import wrong_in_top

SHOWN_MISTAKES = 12  # three rows of four on a page
THUMBNAIL_SIDE = 160  # pixels of a thumbnail's longer side
INLINE = ("data:image/png;base64,", "data:image/jpeg;base64,")  # a page fetches nothing


@dataclass(frozen=True)
class Mistake:
    """An image that a net is sure of and wrong about."""

    set: str
    file: str  # as the set calls it: a path, or a number in sets that are kept in memory
    truth: str
    predicted: str
    probability: float  # of the predicted class
    truth_probability: float
    picture: str  # a data: address of the thumbnail


def worst_mistakes(
    log_probabilities: Tensor,
    labels: Tensor,
    images: ImagesInMemory | EncodedImages,
    count: int = SHOWN_MISTAKES,
) -> list[Mistake]:
    """The `count` wrong answers that a net is surest of, the surest first.

    `log_probabilities` [N, outputs] and `labels` [N], which output is right, follow the images
    of the set, whose classes are the outputs. Images whose scores are no numbers have no answer,
    so they are left out.
    """
    names = images.classes
    assert len(labels) == len(log_probabilities) == len(images)
    assert log_probabilities.shape[1] == len(names)
    log_probabilities, labels = log_probabilities.cpu(), labels.cpu()
    surest = log_probabilities.max(1).values
    wrong = wrong_in_top(log_probabilities, labels, 1) & surest.isfinite()
    order = surest.masked_fill(~wrong, -float("inf")).sort(descending=True, stable=True).indices
    found = []
    for index in order[: min(count, int(wrong.sum()))].tolist():
        # of equal scores the lower index ranks first, as for the errors
        ranked = log_probabilities[index].sort(descending=True, stable=True).indices
        predicted, label = int(ranked[0]), int(labels[index])
        file, pixels = named_image(images, index)
        found.append(
            Mistake(
                images.name, file, names[label], names[predicted],
                probability=float(surest[index].exp()),
                truth_probability=float(log_probabilities[index, label].exp()),
                picture=thumbnail(pixels),
            )
        )  # fmt: skip
    return found


def named_image(images: ImagesInMemory | EncodedImages, index: int) -> tuple[str, np.ndarray]:
    """What a set calls an image, and its pixels: RGB uint8 [H, W, 3]."""
    if isinstance(images, ImagesInMemory):
        return f"image {index}", images.images[index].permute(1, 2, 0).cpu().numpy()
    return images.files[index], images.image(index)


def thumbnail(pixels: np.ndarray) -> str:
    """A small image as a data: address; RGB uint8 [H, W, 3].

    One that is small already stays as it is, lossless, for the page to enlarge in whole pixels.
    """
    small = Image.fromarray(np.ascontiguousarray(pixels))
    data = io.BytesIO()
    if max(small.size) <= THUMBNAIL_SIDE // 2:
        small.save(data, "PNG")
        address = INLINE[0]
    else:
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        small.save(data, "JPEG", quality=85)
        address = INLINE[1]
    return address + base64.b64encode(data.getvalue()).decode()


def mistakes_json(mistakes: Sequence[Mistake]) -> dict[str, Any]:
    """The content of a run's mistakes.json."""
    return {"mistakes": [asdict(mistake) for mistake in mistakes]}


def mistakes_from(content: dict[str, Any]) -> list[Mistake]:
    """The mistakes of a mistakes.json; ValueError if it is not one."""
    try:
        mistakes = [Mistake(**entry) for entry in content["mistakes"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"these are no mistakes: {error}") from None
    for mistake in mistakes:
        if not mistake.picture.startswith(INLINE):
            raise ValueError(f"the image of {mistake.file} is not inside the file")
    return mistakes
