"""Detections of two programs are matched by class, box and score."""

import torch

from reslab.data.boxes.sets import Detections
from reslab.deploy.detection_match import NO_MATCHES, Matches, match_detections

BOX, OTHER = [10.0, 10, 30, 40], [50.0, 10, 70, 40]


def detections(*rows: tuple[list[float], float, int]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        torch.tensor(boxes).view(-1, 4), torch.tensor(scores), torch.tensor(labels).long()
    )


def match(one: Detections, other: Detections) -> Matches:
    return match_detections(one, other, scores=0.002, pixels=0.5, above=0.05)


def test_equal_detections_match_in_any_order() -> None:
    one = detections((BOX, 0.9, 0), (OTHER, 0.8, 1))
    assert match(one, one.take(torch.tensor([1, 0]))) == Matches(4, 0, 0.0, 0.0)
    assert match(detections(), detections()) == NO_MATCHES


def test_differences_are_those_of_the_closest() -> None:
    near = [10.25, 10, 30, 40]
    found = match(detections((BOX, 0.9, 0), (near, 0.9, 0)), detections((BOX, 0.899, 0)))
    assert (found.detections, found.unmatched) == (3, 0)
    assert found.pixels == 0.25  # of the second, to the only one
    assert 0.0009 < found.scores < 0.0011


def test_another_class_box_or_score_is_no_match() -> None:
    one = detections((BOX, 0.9, 0))
    for other in ((BOX, 0.9, 1), ([10.6, 10, 30, 40], 0.9, 0), (BOX, 0.895, 0)):
        assert match(one, detections(other)) == Matches(2, 2, 0.0, 0.0)
    assert match(one, detections()) == Matches(1, 1, 0.0, 0.0)
    assert match(detections(), one) == Matches(1, 1, 0.0, 0.0)


def test_scores_at_the_threshold_may_lack_a_match() -> None:
    assert match(detections((BOX, 0.0515, 0)), detections()) == Matches(1, 0, 0.0, 0.0)
    assert match(detections((BOX, 0.0525, 0)), detections()) == Matches(1, 1, 0.0, 0.0)
    assert match(detections((BOX, 0.05, 0)), detections()) == NO_MATCHES
    # a match below the threshold counts
    assert match(detections((BOX, 0.051, 0)), detections((BOX, 0.0495, 0))).unmatched == 0


def test_sums() -> None:
    assert Matches(1, 0, 0.1, 0.5) + Matches(2, 1, 0.2, 0.25) == Matches(3, 1, 0.2, 0.5)
