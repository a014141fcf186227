"""Average precision: rankings worked by hand, VOC's against loops, COCO's by its own code."""

import sys
from collections.abc import Sequence
from math import isnan
from pathlib import Path

import numpy as np
import pytest
import torch

from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.sets import Detections, DetectionSet, GroundTruth
from reslab.detection.average_precision.measure import AveragePrecision, measure, usual_protocol
from reslab.detection.average_precision.voc import (
    Ranking,
    area,
    eleven_points,
    interpolated,
    rankings,
)

Box = tuple[float, float, float, float]
A, B = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
HALF_OF_B, LESS_THAN_HALF = (20.0, 0.0, 30.0, 5.0), (20.0, 0.0, 30.0, 4.99)
ELSEWHERE = (50.0, 50.0, 60.0, 60.0)


def truth(*boxes: Box, label: int = 0, difficult: Sequence[int] = (), crowd=()) -> GroundTruth:
    places = range(len(boxes))
    return GroundTruth(
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        torch.full((len(boxes),), label),
        torch.tensor([at in difficult for at in places], dtype=torch.bool),
        torch.tensor([at in crowd for at in places], dtype=torch.bool),
    )


def found(*rows: tuple[float, Box], label: int = 0) -> Detections:
    return Detections(
        torch.tensor([box for _, box in rows], dtype=torch.float64).reshape(-1, 4),
        torch.tensor([score for score, _ in rows], dtype=torch.float64),
        torch.full((len(rows),), label),
    )


def a_set(
    truths: Sequence[GroundTruth], classes: Sequence[str] = ("cat",), keys=None
) -> DetectionSet:
    number = len(truths)
    return DetectionSet(
        "scenes", [f"{at}.png" for at in range(number)], truths, tuple(classes), tuple(classes),
        lambda file: b"", [(100, 100)] * number, keys or list(range(number)),
    )  # fmt: skip


# right, wrong (a second one on A), on a difficult box, right, wrong (nothing there), right
TRUTHS = [truth(A, B), truth(A, B, difficult=[1])]
FOUND = [
    found((0.4, HALF_OF_B), (0.9, A), (0.8, A)),
    found((0.7, B), (0.6, A), (0.5, ELSEWHERE)),
]


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
    """In floating point 3 / 10 is less than 3 * 0.1."""
    ranking = Ranking(np.array([True] * 3), 10)
    assert eleven_points(ranking) == pytest.approx(4 / 11, abs=1e-15)
    assert area(ranking) == pytest.approx(0.3, abs=1e-15)


def test_half_is_enough_and_less_is_not() -> None:
    assert only([truth(B)], [found((0.5, HALF_OF_B))]).correct.tolist() == [True]
    assert only([truth(B)], [found((0.5, LESS_THAN_HALF))]).correct.tolist() == [False]


def test_every_detection_on_a_difficult_box_is_left_out() -> None:
    ranking = only([truth(B, difficult=[0])], [found((0.9, B), (0.8, B), (0.7, ELSEWHERE))])
    assert (ranking.correct.tolist(), ranking.positives) == ([False], 0)
    crowd = only([truth(B, crowd=[0])], [found((0.9, B), (0.8, B), (0.7, ELSEWHERE))])
    assert (crowd.correct.tolist(), crowd.positives) == ([False], 0)


def test_the_box_that_is_overlapped_most_decides() -> None:
    """A detection between two boxes does not go on to the one that is still free."""
    near = (1.0, 0.0, 11.0, 10.0)  # IoU of A and near: 9 / 11
    ranking = only([truth(A, near)], [found((0.9, A), (0.8, A), (0.7, near))])
    assert ranking.correct.tolist() == [True, False, True]
    hidden = only([truth(A, near, difficult=[1])], [found((0.9, near), (0.8, A))])
    assert hidden.correct.tolist() == [True]


def test_equal_scores_stay_in_the_order_of_the_images() -> None:
    right, wrong = (truth(A), found((0.5, A))), (truth(A), found((0.5, ELSEWHERE)))
    for pairs in ([right, wrong], [wrong, right]):
        ranking = only(*zip(*pairs, strict=True))
        assert ranking.correct.tolist() == [pair is right for pair in pairs]
    several = only([truth(A, B)], [found((0.5, ELSEWHERE), (0.5, A), (0.5, ELSEWHERE), (0.5, B))])
    assert several.correct.tolist() == [False, True, False, True]


def test_nothing_found_and_nothing_to_be_found() -> None:
    nothing = only([truth(A)], [found()])
    assert (eleven_points(nothing), area(nothing)) == (0.0, 0.0)
    needless = only([truth()], [found((0.5, A))])
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
    """VOC's two numbers of class 0 as its development kits tell them, one detection at a time."""
    ranked = [
        (-score, image, box)
        for image, seen in enumerate(detections)
        for score, label, box in zip(
            seen.scores.tolist(), seen.labels.tolist(), seen.boxes.tolist(), strict=True
        )
        if label == 0
    ]
    ranked.sort(key=lambda row: row[0])
    objects = [
        [
            (tuple(box), difficult)
            for box, label, difficult in zip(
                it.boxes.tolist(), it.labels.tolist(), it.difficult.tolist(), strict=True
            )
            if label == 0
        ]
        for it in truths
    ]
    positives = sum(not difficult for of_image in objects for _, difficult in of_image)
    taken = set()
    right = wrong = 0
    points = []
    for _, picture, box in ranked:
        overlaps = [iou_of(box, other) for other, _ in objects[picture]]
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
        if best is None or overlaps[best] < 0.5:
            wrong += 1
        elif objects[picture][best][1]:
            continue
        elif (picture, best) in taken:
            wrong += 1
        else:
            taken.add((picture, best))
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
    """Few places and few scores, so that boxes meet and scores tie; two classes, in images."""

    def boxes(number: int) -> torch.Tensor:
        corners = torch.from_numpy(rng.integers(0, 3, (number, 2)) * 4.0)
        return torch.cat([corners, corners + torch.from_numpy(rng.integers(4, 9, (number, 2)))], 1)

    truths, detections = [], []
    for _ in range(3):
        number, seen = int(rng.integers(0, 4)), int(rng.integers(0, 7))
        labels = torch.from_numpy(rng.integers(0, 2, number))
        difficult = torch.from_numpy(rng.random(number) < 0.2)
        truths.append(GroundTruth(boxes(number), labels, difficult, torch.zeros_like(difficult)))
        scores = torch.from_numpy(rng.integers(1, 5, seen) / 4)
        detections.append(
            Detections(boxes(seen), scores, torch.from_numpy(rng.integers(0, 2, seen)))
        )
    return truths, detections


def test_loops_give_the_same() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(400):
        truths, detections = random_case(rng)
        ranking = rankings(truths, detections, 2)[0]
        if ranking.positives:
            eleven, whole = by_loops(truths, detections)
            assert eleven_points(ranking) == pytest.approx(eleven, abs=1e-12)
            assert area(ranking) == pytest.approx(whole, abs=1e-12)
            compared += 1
    assert compared > 300


def test_eleven_points_are_every_tenth_of_the_curve() -> None:
    (ranking,) = rankings(TRUTHS, FOUND, 1)
    curve = interpolated(ranking, 100)
    assert curve[::10].mean() == pytest.approx(eleven_points(ranking), abs=1e-15)
    assert (np.diff(curve) <= 0).all()


def test_the_reports_of_all_protocols() -> None:
    reports = {name: measure(a_set(TRUTHS), FOUND, name) for name in ("coco", "voc-2007")}
    voc, coco = reports["voc-2007"], reports["coco"]
    assert voc.map_50 == pytest.approx(100 * 8.4 / 11)
    assert (voc.map_50_95, voc.coco) == (None, {})
    # 34 of COCO's 101 recalls are 1/3 or less, 33 more 2/3 or less
    assert coco.map_50 == pytest.approx(100 * (34 + 33 * 2 / 3 + 34 * 3 / 5) / 101)
    assert coco.map_50_95 == coco.coco["ap"] < coco.map_50
    assert voc.curves[0] == pytest.approx(coco.curves[0])
    (row,) = coco.per_class
    assert row["class"] == "cat"
    assert (row["boxes"], row["detections"], row["ap_50"]) == (3, 6, pytest.approx(coco.map_50))
    assert str(voc) == "scenes: mAP@.5 76.36 %  (VOC 2007, eleven points, IoU 0.5, n=2)"


def test_coco_sizes_are_those_of_the_outlines() -> None:
    """A box of 100 x 100 pixels around an outline of 50 is a small object."""
    whole = truth((0.0, 0.0, 100.0, 100.0))
    thin = GroundTruth(
        whole.boxes, whole.labels, whole.difficult, whole.crowd, torch.tensor([50.0])
    )
    detections = [found((0.9, (0.0, 0.0, 100.0, 100.0)))]
    numbers = measure(a_set([whole]), detections).coco
    assert isnan(numbers["ap_small"])
    assert numbers["ap_large"] == pytest.approx(100)
    numbers = measure(a_set([thin]), detections).coco
    assert numbers["ap_small"] == pytest.approx(100)
    assert isnan(numbers["ap_large"])


def test_a_first_box_counts_for_coco() -> None:
    """pycocotools takes the box numbered 0 for none."""
    assert measure(a_set([truth(A)]), [found((0.9, A))]).map_50 == pytest.approx(100)


def test_a_crowd_forgives_what_lies_in_it() -> None:
    seen = [found((0.9, A), (0.8, (50.0, 50.0, 60.0, 60.0)), (0.7, (70.0, 70.0, 80.0, 80.0)))]
    area_of_many = (40.0, 40.0, 90.0, 90.0)
    assert measure(a_set([truth(A, area_of_many, crowd=[1])]), seen).map_50 == pytest.approx(100)
    (row,) = measure(a_set([truth(A, area_of_many, crowd=[1])]), seen).per_class
    assert row["boxes"] == 1


@pytest.mark.parametrize("protocol", ["coco", "voc-2007", "voc-2012"])
def test_classes_without_boxes_are_left_out_and_named(protocol: str) -> None:
    images = a_set([truth(A)], ("cat", "dog", "owl"))
    both = [found((0.9, A))]
    alone = measure(a_set([truth(A)]), both, protocol)
    report = measure(images, both, protocol)
    assert report.map_50 == alone.map_50 == pytest.approx(100)
    assert report.classes_without_boxes == ["dog", "owl"]
    assert "2 of 3 classes have no boxes, left out" in str(report)
    rows = report.details()["per_class"]
    assert [row["ap_50"] is None for row in rows] == [False, True, True]
    assert isnan(report.per_class[1]["ap_50"])


@pytest.mark.parametrize("protocol", ["coco", "voc-2007", "voc-2012"])
def test_nothing_found_is_zero(protocol: str) -> None:
    report = measure(a_set([truth(A), truth()]), [found(), found()], protocol)
    assert report.map_50 == 0


@pytest.mark.parametrize("protocol", ["coco", "voc-2007", "voc-2012"])
def test_images_rank_by_their_keys(protocol: str) -> None:
    """So that equal scores give the same number in whatever order images are listed."""
    truths, seen = [truth(A), truth(A)], [found((0.5, A)), found((0.5, ELSEWHERE))]
    one = measure(a_set(truths, keys=[3, 7]), seen, protocol)
    turned = measure(a_set(truths[::-1], keys=[7, 3]), seen[::-1], protocol)
    assert one.map_50 == turned.map_50
    assert one.map_50 > measure(a_set(truths, keys=[7, 3]), seen, protocol).map_50


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="scenes has no boxes to be found"):
        measure(a_set([truth(A, difficult=[0])]), [found((0.9, A))])
    with pytest.raises(ValueError, match=r"0\.png: a detection has a score or a box"):
        measure(a_set([truth(A)]), [found((float("nan"), A))])
    with pytest.raises(ValueError, match="did you mean 'voc-2007'"):
        measure(a_set([truth(A)]), [found()], "voc2007")


def test_without_pycocotools_one_line_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match=r"pip install 'reslab\[detect\]'"):
        measure(a_set([truth(A)]), [found()])
    assert isinstance(measure(a_set([truth(A)]), [found()], "voc-2012"), AveragePrecision)


def test_a_set_has_its_usual_protocol(tmp_path: Path) -> None:
    def usual(layout: str, root: Path, *files: str) -> str:
        return usual_protocol(Annotations(layout, "test", root, str, files=list(files)))

    assert usual("COCO", tmp_path, "a.jpg") == "coco"
    assert usual("VOC", tmp_path, "VOC2007/JPEGImages/a.jpg") == "voc-2007"
    assert usual("VOC", tmp_path / "VOC2007", "JPEGImages/a.jpg") == "voc-2007"
    assert usual("VOC", tmp_path, "VOC2012/JPEGImages/a.jpg") == "voc-2012"
    assert usual("VOC", tmp_path) == "voc-2012"
