"""Average precision as in Pascal VOC: over eleven recalls until 2009, over all recalls since 2010.

Each detection is compared with the box of its class that it overlaps most. It is correct if their
IoU is IOU or more and no higher-scoring detection has matched this box already; a second match is a
false positive. Difficult boxes and crowds need not be detected, and detections matched to them are
not ranked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reslab.data.boxes.sets import Detections, GroundTruth
from reslab.detection.box_ops import iou

IOU = 0.5
WRONG, CORRECT, IGNORED = range(3)


@dataclass(frozen=True)
class Ranking:
    """All detections of one class in a set, by decreasing score."""

    correct: np.ndarray  # bool [D]
    positives: int  # boxes to detect


def rankings(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], classes: int
) -> list[Ranking]:
    """Rank the detections of each class by score.

    Ties stay in the order of the images, then of the detections in an image.
    """
    marks: list[list[np.ndarray]] = [[] for _ in range(classes)]
    scores: list[list[np.ndarray]] = [[] for _ in range(classes)]
    positives = np.zeros(classes, dtype=int)
    for truth, image in zip(truths, detections, strict=True):
        truth_labels, image_labels = truth.labels.numpy(), image.labels.numpy()
        ignored, image_scores = (truth.difficult | truth.crowd).numpy(), image.scores.numpy()
        overlaps = iou(image.boxes.double(), truth.boxes.double()).numpy()
        positives += np.bincount(truth_labels[~ignored], minlength=classes)
        for label in np.unique(image_labels):
            rows = np.flatnonzero(image_labels == label)
            rows = rows[np.argsort(-image_scores[rows], kind="stable")]
            columns = np.flatnonzero(truth_labels == label)
            mark = mark_detections(overlaps[np.ix_(rows, columns)], ignored[columns])
            marks[label].append(mark[mark != IGNORED])
            scores[label].append(image_scores[rows][mark != IGNORED])
    return [
        Ranking(by_score(marks[label], scores[label]) == CORRECT, int(positives[label]))
        for label in range(classes)
    ]


def mark_detections(overlaps: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Mark the detections of one class in one image as CORRECT, WRONG or IGNORED, int [D].

    `overlaps` [D, G] holds the IoU of each detection, highest score first, with each box of the
    class; `ignored` [G] is True for boxes that need not be detected.
    """
    marks = np.full(len(overlaps), WRONG)
    if not len(ignored):
        return marks
    best = overlaps.argmax(1)
    hit = overlaps.max(1) >= IOU
    marks[hit & ignored[best]] = IGNORED
    hits = np.flatnonzero(hit & ~ignored[best])
    _, first = np.unique(best[hits], return_index=True)  # only the first match of a box is correct
    marks[hits[first]] = CORRECT
    return marks


def by_score(values: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate the values of all images and sort them stably by decreasing score."""
    if not values:
        return np.zeros(0, dtype=int)
    return np.concatenate(values)[np.argsort(-np.concatenate(scores), kind="stable")]


def best_precisions(ranking: Ranking) -> np.ndarray:
    """Return the highest precision at each detection's rank or any lower rank, [D]."""
    precisions = np.cumsum(ranking.correct) / np.arange(1, len(ranking.correct) + 1)
    return np.maximum.accumulate(precisions[::-1])[::-1]


def interpolated(ranking: Ranking, steps: int) -> np.ndarray:
    """Return the highest precision at a recall of k / steps or more for k = 0 ... steps.

    The values are NaN if there is nothing to detect.
    """
    if not ranking.positives:
        return np.full(steps + 1, np.nan)
    # hits / positives >= k / steps in integers, so that a recall of 3 / 10 reaches 0.3
    hits = np.cumsum(ranking.correct) * steps
    ranks = np.searchsorted(hits, np.arange(steps + 1) * ranking.positives)
    return np.append(best_precisions(ranking), 0.0)[ranks]


def eleven_points(ranking: Ranking) -> float:
    """Average the interpolated precision over recalls 0, 0.1, ... 1, as in VOC until 2009."""
    return float(interpolated(ranking, 10).mean())


def area(ranking: Ranking) -> float:
    """Integrate the interpolated precision over all recalls, as in VOC since 2010."""
    if not ranking.positives:
        return float("nan")
    return float(best_precisions(ranking)[ranking.correct].sum() / ranking.positives)
