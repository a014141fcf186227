"""VOC's average precision against rankings by hand and loops as in its development kits."""

from collections.abc import Sequence
from math import isnan

import numpy as np
import pytest
import torch
from tests.detection.average_precision.small_detections import (
    ELSEWHERE,
    FOUND,
    HALF_OF_B,
    LESS_THAN_HALF,
    TRUTHS,
    A,
    B,
    Box,
    detected,
    truth,
)

from reslab.data.boxes.sets import Detections, GroundTruth
from reslab.detection.average_precision.voc import (
    Ranking,
    area,
    eleven_points,
    interpolated,
    rankings,
)


def only(truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> Ranking:
    (ranking,) = rankings(truths, detections, 1)
    return ranking


def test_a_ranking_worked_by_hand() -> None:
    ranking = only(TRUTHS, FOUND)
    assert ranking.correct.tolist() == [True, False, True, False, True]
    assert ranking.positives == 3
    # precisions 1, 1/2, 2/3, 1/2, 3/5 at recalls 1/3, 1/3, 2/3, 2/3, 1
    assert area(ranking) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3, abs=1e-15)
    assert eleven_points(ranking) == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11, abs=1e-15)


def test_a_recall_of_three_tenths_reaches_the_fourth_point() -> None:
    """In floating point, 3 / 10 is less than 3 * 0.1."""
    ranking = Ranking(np.array([True] * 3), 10)
    assert eleven_points(ranking) == pytest.approx(4 / 11, abs=1e-15)
    assert area(ranking) == pytest.approx(0.3, abs=1e-15)


def test_an_iou_of_one_half_is_enough() -> None:
    assert only([truth(B)], [detected((0.5, HALF_OF_B))]).correct.tolist() == [True]
    assert only([truth(B)], [detected((0.5, LESS_THAN_HALF))]).correct.tolist() == [False]


def test_every_detection_on_a_difficult_box_is_left_out() -> None:
    ranking = only([truth(B, difficult=[0])], [detected((0.9, B), (0.8, B), (0.7, ELSEWHERE))])
    assert (ranking.correct.tolist(), ranking.positives) == ([False], 0)
    crowd = only([truth(B, crowd=[0])], [detected((0.9, B), (0.8, B), (0.7, ELSEWHERE))])
    assert (crowd.correct.tolist(), crowd.positives) == ([False], 0)


def test_the_box_that_is_overlapped_most_decides() -> None:
    """A detection between two boxes is not matched to the one that is still unmatched."""
    near = (1.0, 0.0, 11.0, 10.0)  # IoU of A and near: 9 / 11
    ranking = only([truth(A, near)], [detected((0.9, A), (0.8, A), (0.7, near))])
    assert ranking.correct.tolist() == [True, False, True]
    hidden = only([truth(A, near, difficult=[1])], [detected((0.9, near), (0.8, A))])
    assert hidden.correct.tolist() == [True]


def test_equal_scores_stay_in_the_order_of_the_images() -> None:
    right, wrong = (truth(A), detected((0.5, A))), (truth(A), detected((0.5, ELSEWHERE)))
    for pairs in ([right, wrong], [wrong, right]):
        ranking = only(*zip(*pairs, strict=True))
        assert ranking.correct.tolist() == [pair is right for pair in pairs]
    several = only(
        [truth(A, B)], [detected((0.5, ELSEWHERE), (0.5, A), (0.5, ELSEWHERE), (0.5, B))]
    )
    assert several.correct.tolist() == [False, True, False, True]


def test_no_detections_and_nothing_to_detect() -> None:
    nothing = only([truth(A)], [detected()])
    assert (eleven_points(nothing), area(nothing)) == (0.0, 0.0)
    needless = only([truth()], [detected((0.5, A))])
    assert isnan(eleven_points(needless))
    assert isnan(area(needless))
    assert np.isnan(interpolated(needless, 100)).all()


def iou_of(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(sizes) - shared) if shared else 0.0


def by_loops(
    truths: Sequence[GroundTruth], detections: Sequence[Detections]
) -> tuple[float, float]:
    """Compute VOC's two numbers for class 0 as its development kits do, one by one."""
    ranked = [
        (-score, image, box)
        for image, rows in enumerate(detections)
        for score, label, box in zip(
            rows.scores.tolist(), rows.labels.tolist(), rows.boxes.tolist(), strict=True
        )
        if label == 0
    ]
    ranked.sort(key=lambda row: row[0])
    objects = [
        [
            (tuple(box), difficult)
            for box, label, difficult in zip(
                rows.boxes.tolist(), rows.labels.tolist(), rows.difficult.tolist(), strict=True
            )
            if label == 0
        ]
        for rows in truths
    ]
    positives = sum(not difficult for of_image in objects for _, difficult in of_image)
    taken = set()
    right = wrong = 0
    points = []
    for _, image, box in ranked:
        overlaps = [iou_of(box, other) for other, _ in objects[image]]
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
        if best is None or overlaps[best] < 0.5:
            wrong += 1
        elif objects[image][best][1]:
            continue
        elif (image, best) in taken:
            wrong += 1
        else:
            taken.add((image, best))
            right += 1
        points.append((right, right / (right + wrong)))
    eleven = sum(
        max((p for hits, p in points if 10 * hits >= k * positives), default=0.0) for k in range(11)
    )
    whole, before = 0.0, 0
    for hits, _ in points:
        whole += (hits - before) / positives * max(p for h, p in points if h >= hits)
        before = hits
    return eleven / 11, whole


def random_case(rng: np.random.Generator) -> tuple[list[GroundTruth], list[Detections]]:
    """Sample images with two classes and few positions and scores, so that many are equal."""

    def boxes(number: int) -> torch.Tensor:
        corners = torch.from_numpy(rng.integers(0, 3, (number, 2)) * 4.0)
        return torch.cat([corners, corners + torch.from_numpy(rng.integers(4, 9, (number, 2)))], 1)

    truths, detections = [], []
    for _ in range(3):
        number, count = int(rng.integers(0, 4)), int(rng.integers(0, 7))
        labels = torch.from_numpy(rng.integers(0, 2, number))
        difficult = torch.from_numpy(rng.random(number) < 0.2)
        truths.append(GroundTruth(boxes(number), labels, difficult, torch.zeros_like(difficult)))
        scores = torch.from_numpy(rng.integers(1, 5, count) / 4)
        detections.append(
            Detections(boxes(count), scores, torch.from_numpy(rng.integers(0, 2, count)))
        )
    return truths, detections


def test_random_cases_against_plain_loops() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(150):
        truths, detections = random_case(rng)
        ranking = rankings(truths, detections, 2)[0]
        if ranking.positives:
            eleven, whole = by_loops(truths, detections)
            assert eleven_points(ranking) == pytest.approx(eleven, abs=1e-12)
            assert area(ranking) == pytest.approx(whole, abs=1e-12)
            compared += 1
    assert compared > 110


def test_eleven_points_are_every_tenth_of_the_curve() -> None:
    (ranking,) = rankings(TRUTHS, FOUND, 1)
    curve = interpolated(ranking, 100)
    assert curve[::10].mean() == pytest.approx(eleven_points(ranking), abs=1e-15)
    assert (np.diff(curve) <= 0).all()
