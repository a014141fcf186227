"""Average precision as Pascal VOC measures it: at eleven recalls in 2007, the area since 2010.

A detection is right if its IoU with the box of its class that it overlaps most is IOU or more and
no detection before it has found that box; a second one on the same box is wrong. Boxes that are
difficult, or crowds, are not to be found, and detections on them are left out of the ranking.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reslab.data.boxes.sets import Detections, GroundTruth
from reslab.detection.box_ops import iou

IOU = 0.5
WRONG, RIGHT, IGNORED = range(3)


@dataclass(frozen=True)
class Ranking:
    """The detections of one class in a whole set, by falling score."""

    correct: np.ndarray  # bool [D]
    positives: int  # boxes to be found


def rankings(
    truths: Sequence[GroundTruth], found: Sequence[Detections], classes: int
) -> list[Ranking]:
    """One a class. Equal scores: in the order of the images, then of their detections."""
    marks: list[list[np.ndarray]] = [[] for _ in range(classes)]
    scores: list[list[np.ndarray]] = [[] for _ in range(classes)]
    positives = np.zeros(classes, dtype=int)
    for truth, seen in zip(truths, found, strict=True):
        labels, seen_labels = truth.labels.numpy(), seen.labels.numpy()
        ignored, seen_scores = (truth.difficult | truth.crowd).numpy(), seen.scores.numpy()
        overlaps = iou(seen.boxes.double(), truth.boxes.double()).numpy()
        positives += np.bincount(labels[~ignored], minlength=classes)
        for label in np.unique(seen_labels):
            own = np.flatnonzero(seen_labels == label)
            own = own[np.argsort(-seen_scores[own], kind="stable")]
            there = np.flatnonzero(labels == label)
            mark = marks_of(overlaps[np.ix_(own, there)], ignored[there])
            marks[label].append(mark[mark != IGNORED])
            scores[label].append(seen_scores[own][mark != IGNORED])
    return [
        Ranking(by_score(marks[label], scores[label]) == RIGHT, int(positives[label]))
        for label in range(classes)
    ]


def marks_of(overlaps: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """RIGHT, WRONG or IGNORED for the detections of one class in one image, best score first.

    IoU with the boxes of that class [D, G], which of these are difficult bool [G] -> int [D].
    """
    marks = np.full(len(overlaps), WRONG)
    if not len(ignored):
        return marks
    best = overlaps.argmax(1)
    hit = overlaps.max(1) >= IOU
    marks[hit & ignored[best]] = IGNORED
    hits = np.flatnonzero(hit & ~ignored[best])
    _, first = np.unique(best[hits], return_index=True)  # later ones find it found already
    marks[hits[first]] = RIGHT
    return marks


def by_score(values: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> np.ndarray:
    """Parts put together by falling score; equal scores stay in their order."""
    if not values:
        return np.zeros(0, dtype=int)
    return np.concatenate(values)[np.argsort(-np.concatenate(scores), kind="stable")]


def best_precisions(ranking: Ranking) -> np.ndarray:
    """At each detection the highest precision there or further down, [D]."""
    precisions = np.cumsum(ranking.correct) / np.arange(1, len(ranking.correct) + 1)
    return np.maximum.accumulate(precisions[::-1])[::-1]


def interpolated(ranking: Ranking, steps: int) -> np.ndarray:
    """The highest precision at recalls of k / steps or more, k = 0 ... steps; NaN if undefined."""
    if not ranking.positives:
        return np.full(steps + 1, np.nan)
    # hits / positives >= k / steps in whole numbers: a recall of 3 / 10 does reach 0.3
    hits = np.cumsum(ranking.correct) * steps
    places = np.searchsorted(hits, np.arange(steps + 1) * ranking.positives)
    return np.append(best_precisions(ranking), 0.0)[places]


def eleven_points(ranking: Ranking) -> float:
    """VOC 2007: the mean of the interpolated precision at recalls 0, 0.1, ... 1."""
    return float(interpolated(ranking, 10).mean())


def area(ranking: Ranking) -> float:
    """VOC 2010 and later: the area below the interpolated precision, over all recalls."""
    if not ranking.positives:
        return float("nan")
    return float(best_precisions(ranking)[ranking.correct].sum() / ranking.positives)
