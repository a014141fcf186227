"""Reports under all protocols, COCO's computed by its own code."""

import sys
from math import isnan
from pathlib import Path

import pytest
import torch
from tests.detection.average_precision.small_detections import (
    ELSEWHERE,
    FOUND,
    TRUTHS,
    A,
    a_set,
    detected,
    truth,
)

from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.sets import GroundTruth
from reslab.detection.average_precision.measure import AveragePrecision, measure, usual_protocol


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


def test_coco_sizes_are_those_of_the_segmentations() -> None:
    """A box of 100 x 100 pixels around a segmentation of 50 is a small object."""
    whole = truth((0.0, 0.0, 100.0, 100.0))
    thin = GroundTruth(
        whole.boxes, whole.labels, whole.difficult, whole.crowd, torch.tensor([50.0])
    )
    detections = [detected((0.9, (0.0, 0.0, 100.0, 100.0)))]
    numbers = measure(a_set([whole]), detections).coco
    assert isnan(numbers["ap_small"])
    assert numbers["ap_large"] == pytest.approx(100)
    numbers = measure(a_set([thin]), detections).coco
    assert numbers["ap_small"] == pytest.approx(100)
    assert isnan(numbers["ap_large"])


def test_a_first_box_counts_for_coco() -> None:
    """pycocotools treats a match with box 0 as no match."""
    assert measure(a_set([truth(A)]), [detected((0.9, A))]).map_50 == pytest.approx(100)


def test_detections_in_a_crowd_are_ignored() -> None:
    detections = [
        detected((0.9, A), (0.8, (50.0, 50.0, 60.0, 60.0)), (0.7, (70.0, 70.0, 80.0, 80.0)))
    ]
    area_of_many = (40.0, 40.0, 90.0, 90.0)
    precision = measure(a_set([truth(A, area_of_many, crowd=[1])]), detections)
    assert precision.map_50 == pytest.approx(100)
    (row,) = precision.per_class
    assert row["boxes"] == 1


@pytest.mark.parametrize("protocol", ["coco", "voc-2007", "voc-2012"])
def test_classes_without_boxes_are_left_out_and_named(protocol: str) -> None:
    images = a_set([truth(A)], ("cat", "dog", "owl"))
    both = [detected((0.9, A))]
    alone = measure(a_set([truth(A)]), both, protocol)
    report = measure(images, both, protocol)
    assert report.map_50 == alone.map_50 == pytest.approx(100)
    assert report.classes_without_boxes == ["dog", "owl"]
    assert "2 of 3 classes left out: no boxes" in str(report)
    rows = report.details()["per_class"]
    assert [row["ap_50"] is None for row in rows] == [False, True, True]
    assert isnan(report.per_class[1]["ap_50"])


@pytest.mark.parametrize("protocol", ["coco", "voc-2007", "voc-2012"])
def test_no_detections_have_a_precision_of_zero(protocol: str) -> None:
    report = measure(a_set([truth(A), truth()]), [detected(), detected()], protocol)
    assert report.map_50 == 0


@pytest.mark.parametrize("protocol", ["coco", "voc-2007", "voc-2012"])
def test_images_rank_by_their_keys(protocol: str) -> None:
    """Equal scores give the same number in whatever order the images are listed."""
    truths, detections = [truth(A), truth(A)], [detected((0.5, A)), detected((0.5, ELSEWHERE))]
    one = measure(a_set(truths, keys=[3, 7]), detections, protocol)
    reversed_ = measure(a_set(truths[::-1], keys=[7, 3]), detections[::-1], protocol)
    assert one.map_50 == reversed_.map_50
    assert one.map_50 > measure(a_set(truths, keys=[7, 3]), detections, protocol).map_50


def test_unmeasurable_detections_are_refused() -> None:
    with pytest.raises(ValueError, match="scenes has no boxes to detect"):
        measure(a_set([truth(A, difficult=[0])]), [detected((0.9, A))])
    with pytest.raises(ValueError, match=r"0\.png: a detection has a score or a box"):
        measure(a_set([truth(A)]), [detected((float("nan"), A))])
    with pytest.raises(ValueError, match="did you mean 'voc-2007'"):
        measure(a_set([truth(A)]), [detected()], "voc2007")


def test_without_pycocotools_one_line_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match=r"pip install 'reslab\[detect\]'"):
        measure(a_set([truth(A)]), [detected()])
    assert isinstance(measure(a_set([truth(A)]), [detected()], "voc-2012"), AveragePrecision)


def test_a_set_has_its_usual_protocol(tmp_path: Path) -> None:
    def usual(layout: str, root: Path, *files: str) -> str:
        return usual_protocol(Annotations(layout, "test", root, str, files=list(files)))

    assert usual("COCO", tmp_path, "a.jpg") == "coco"
    assert usual("VOC", tmp_path, "VOC2007/JPEGImages/a.jpg") == "voc-2007"
    assert usual("VOC", tmp_path / "VOC2007", "JPEGImages/a.jpg") == "voc-2007"
    assert usual("VOC", tmp_path, "VOC2012/JPEGImages/a.jpg") == "voc-2012"
    assert usual("VOC", tmp_path) == "voc-2012"
