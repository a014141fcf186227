"""Compare the detections of two programs in one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reslab.data.boxes.sets import Detections


@dataclass(frozen=True)
class Matches:
    """How well the detections of one program agree with those of another."""

    detections: int  # those compared
    unmatched: int  # without a detection of the same class, with nearly the same box and score
    scores: float  # the largest difference between scores of matched detections
    pixels: float  # the largest difference between their corners

    def __add__(self, other: Matches) -> Matches:
        return Matches(
            self.detections + other.detections,
            self.unmatched + other.unmatched,
            max(self.scores, other.scores),
            max(self.pixels, other.pixels),
        )


NO_MATCHES = Matches(0, 0, 0.0, 0.0)


def match_detections(
    one: Detections, other: Detections, *, scores: float, pixels: float, above: float
) -> Matches:
    """Match each detection of either program to one of the other.

    Matched detections have the same class; their scores differ by at most `scores`, and their
    corners by at most `pixels`. Detections with scores up to `above` are not counted; those just
    above it may lack a match, since the other score may be below.
    """
    away = (one.boxes[:, None] - other.boxes).abs().amax(2)  # [N, M]
    apart = (one.scores[:, None] - other.scores).abs()
    agree = (one.labels[:, None] == other.labels) & (away <= pixels) & (apart <= scores)
    count = missing = 0
    for found, own in ((agree.any(1), one.scores), (agree.any(0), other.scores)):
        counted = own > above
        count += int(counted.sum())
        missing += int((counted & ~found & (own > above + scores)).sum())
    # of several detections that match one, the closest counts
    return Matches(count, missing, worst_of_best(apart, agree), worst_of_best(away, agree))


def worst_of_best(differences: Tensor, agree: Tensor) -> float:
    """Return the largest of the smallest differences in each row, [N, M], bool [N, M]; 0 if none.

    Only pairs that agree are considered.
    """
    rows = agree.any(1)
    if not rows.any():
        return 0.0
    return float(differences.masked_fill(~agree, torch.inf)[rows].amin(1).max())
