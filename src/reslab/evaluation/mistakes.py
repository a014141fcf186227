"""The most confident mistakes of an evaluation, each with a thumbnail that a page can embed."""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from reslab.data.datasets import ImageSet, ImagesInMemory
from reslab.evaluation.report import wrong_in_top

SHOWN_MISTAKES = 12  # three rows of four on the report page
THUMBNAIL_SIDE = 160  # pixels of a thumbnail's longer side
INLINE = ("data:image/png;base64,", "data:image/jpeg;base64,")  # pages load no external files


@dataclass(frozen=True)
class Mistake:
    """A misclassified image."""

    set: str
    file: str  # its path in the set, or "image N" for a set in memory
    truth: str
    predicted: str
    probability: float  # of the predicted class
    truth_probability: float
    picture: str  # the thumbnail as a data: URL


def worst_mistakes(
    log_probabilities: Tensor, labels: Tensor, images: ImageSet, count: int = SHOWN_MISTAKES
) -> list[Mistake]:
    """Return the `count` wrong predictions with the highest probabilities, in descending order.

    `log_probabilities` [N, classes] and `labels` [N] are in the order of the set's images. Images
    whose scores are NaN have no prediction and are left out.
    """
    names = images.classes
    assert len(labels) == len(log_probabilities) == len(images)
    assert log_probabilities.shape[1] == len(names)
    log_probabilities, labels = log_probabilities.cpu(), labels.cpu()
    confidence = log_probabilities.max(1).values
    wrong = wrong_in_top(log_probabilities, labels, 1) & confidence.isfinite()
    order = confidence.masked_fill(~wrong, -float("inf")).sort(descending=True, stable=True).indices
    mistakes = []
    for index in order[: min(count, int(wrong.sum()))].tolist():
        # ties go to the lower index, as for the error rates
        ranked = log_probabilities[index].sort(descending=True, stable=True).indices
        predicted, label = int(ranked[0]), int(labels[index])
        file, pixels = file_and_pixels(images, index)
        mistakes.append(
            Mistake(
                images.name, file, names[label], names[predicted],
                probability=float(confidence[index].exp()),
                truth_probability=float(log_probabilities[index, label].exp()),
                picture=thumbnail(pixels),
            )
        )  # fmt: skip
    return mistakes


def file_and_pixels(images: ImageSet, index: int) -> tuple[str, np.ndarray]:
    """Return the name and the pixels of an image in a set, RGB uint8 [H, W, 3]."""
    if isinstance(images, ImagesInMemory):
        return f"image {index}", images.images[index].permute(1, 2, 0).cpu().numpy()
    return images.files[index], images.image(index)


def thumbnail(pixels: np.ndarray) -> str:
    """Shrink an image, RGB uint8 [H, W, 3], and encode it as a data: URL.

    A small image keeps its size and is encoded losslessly, so that the page can enlarge its pixels.
    """
    small = Image.fromarray(np.ascontiguousarray(pixels))
    data = io.BytesIO()
    if max(small.size) <= THUMBNAIL_SIDE // 2:
        small.save(data, "PNG")
        prefix = INLINE[0]
    else:
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        small.save(data, "JPEG", quality=85)
        prefix = INLINE[1]
    return prefix + base64.b64encode(data.getvalue()).decode()


def mistakes_json(mistakes: Sequence[Mistake]) -> dict[str, Any]:
    """Return the content of a run's mistakes.json."""
    return {"mistakes": [asdict(mistake) for mistake in mistakes]}


def mistakes_from(content: dict[str, Any]) -> list[Mistake]:
    """Return the mistakes in the content of a mistakes.json; see `must_be_mistakes`."""
    names = [field.name for field in fields(Mistake)]
    return [Mistake(**{name: entry[name] for name in names}) for entry in content["mistakes"]]


def must_be_mistakes(content: Any) -> None:
    """Raise ValueError, with the reason, unless a value is the content of a mistakes.json."""
    entries = content.get("mistakes") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError("there is no list of 'mistakes' in it")
    for number, entry in enumerate(entries):
        for field in fields(Mistake):
            value = entry.get(field.name) if isinstance(entry, dict) else None
            kind = (int, float) if field.type is float else str
            if not isinstance(value, kind):
                raise ValueError(f"mistake {number} has no {field.name}, or of another type")
        if not entry["picture"].startswith(INLINE):
            raise ValueError(f"the image of mistake {number} is not embedded in the file")
