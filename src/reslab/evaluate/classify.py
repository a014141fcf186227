"""A protocol over a set: each picture exactly once, errors from whole counts."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.evaluate.errors import wrong_in_top
from reslab.evaluate.views import OneCrop

# fixed ranges of indices: results do not depend on who evaluates which range, or on the device
RANGE = 500


@dataclass(frozen=True)
class Report:
    """Error rates in percent, never without their set, protocol and number of pictures."""

    set: str
    protocol: str
    n: int
    top1_error: float
    top5_error: float
    loss: float  # mean cross-entropy, natural logarithm

    def __str__(self) -> str:
        return (
            f"{self.set}: top-1 error {self.top1_error:.2f} %, top-5 error "
            f"{self.top5_error:.2f} %  ({self.protocol}, n={self.n})"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def classify(
    model: Callable[[Tensor], Tensor],
    images: ImageSet,
    protocol: OneCrop = OneCrop(),
) -> Report:
    """Test `model`, uint8 [B, 3, H, W] -> scores [B, classes], on every picture of a set.

    Top-5 is top-k for k = min(5, classes).
    """
    if not len(images):
        raise ValueError(f"{images.name} holds no pictures: there is nothing to evaluate")
    k = min(5, len(images.classes))
    wrong1 = wrong5 = 0
    loss = 0.0
    for start in range(0, len(images), RANGE):
        labels = images.labels[start : start + RANGE]
        scores = model(images.images[start : start + RANGE]).float()
        wrong1 += int(wrong_in_top(scores, labels, 1).sum())
        wrong5 += int(wrong_in_top(scores, labels, k).sum())
        loss += float(F.cross_entropy(scores, labels, reduction="sum"))
    n = len(images)
    return Report(
        set=images.name, protocol=str(protocol), n=n,
        top1_error=100 * wrong1 / n, top5_error=100 * wrong5 / n, loss=loss / n,
    )  # fmt: skip
