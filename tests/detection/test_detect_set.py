"""Detection in a set of images: order, labels, bad images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.data.boxes.planted_boxes import open_whole
from tests.detection.small import SCENES, detector, renamed, same, scenes_folder

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.detection.detect_set import detect_set, labels_in
from reslab.detection.inference import detect_objects, prepare_for_inference

DIGITS = tuple("0123456789")
MODEL = detector()
FAST = prepare_for_inference(MODEL)
SEARCH = MODEL.search.with_changes({"threshold": 0.0})  # so that every class is detected


def detections_in(images: DetectionSet, labels: list[int]) -> list[Detections]:
    """Detect image by image; `labels` are the set's labels for the detector's classes."""
    rows = []
    for index in range(len(images)):
        detections = detect_objects(FAST, images.image(index), SEARCH)
        known = detections.take(torch.tensor(labels)[detections.labels] >= 0)
        rows.append(replace(known, labels=torch.tensor(labels)[known.labels]))
    return rows


def all_same(one: list[Detections], other: list[Detections]) -> bool:
    return all(same(a, b) for a, b in zip(one, other, strict=True))


def test_detections_of_a_set_are_in_its_order() -> None:
    lines: list[str | None] = []
    images, detections = detect_set([MODEL], SCENES.test, SEARCH, lines.append)
    assert images is SCENES.test
    assert lines == [None] * 3
    assert all_same(detections, detections_in(SCENES.test, list(range(10))))
    assert any(map(len, detections))


def test_labels_are_those_of_the_set() -> None:
    """The set has the digits in another order and lacks 3."""
    order = (9, 8, 7, 6, 5, 4, 2, 1, 0)
    names = tuple(str(digit) for digit in order)
    others = renamed(SCENES, names, names).test
    assert labels_in(MODEL, others).tolist() == [8, 7, 6, -1, 5, 4, 3, 2, 1, 0]
    _, detections = detect_set([MODEL], others, SEARCH)
    expected = detections_in(SCENES.test, [8, 7, 6, -1, 5, 4, 3, 2, 1, 0])
    assert all_same(detections, expected)
    all_classes = detections_in(SCENES.test, list(range(10)))
    assert sum(map(len, expected)) < sum(map(len, all_classes))


def test_names_decide_where_ids_are_only_numbers() -> None:
    """Most COCO folders number their categories from 1, whatever they are."""
    numbered = renamed(SCENES, DIGITS, tuple(str(number + 1) for number in range(10))).test
    assert labels_in(MODEL, numbered).tolist() == list(range(10))
    # ids that the detector has for other classes
    few = renamed(SCENES, ("0", "1"), ("1", "2")).test
    assert labels_in(MODEL, few).tolist() == [0, 1, *[-1] * 8]
    cars = renamed(SCENES, ("car", "bus"), ("1", "2")).test
    with pytest.raises(ValueError, match="lacks a class of test: no class 'car'"):
        labels_in(MODEL, cars)


def test_ids_distinguish_classes_of_one_name() -> None:
    """COCO-like sets may have two cranes: the bird and the machine."""
    names, ids = ("crane", "crane", "dog"), ("4", "7", "9")
    model = replace(MODEL, classes=names, ids=ids)
    assert labels_in(model, renamed(SCENES, names, ids).test).tolist() == [0, 1, 2]
    assert labels_in(model, renamed(SCENES, names[::-1], ids[::-1]).test).tolist() == [2, 1, 0]


def test_an_unknown_class_is_refused_with_the_nearest() -> None:
    model = replace(MODEL, classes=("person", "tiger"), ids=("1", "2"))
    with pytest.raises(ValueError, match="did you mean 'tiger'") as caught:
        labels_in(model, renamed(SCENES, ("tigger",), ("5",)).test)
    assert "\n" not in str(caught.value)


def test_bad_images_are_reported_and_left_out(tmp_path: Path) -> None:
    folder = scenes_folder(tmp_path / "scenes")
    whole = open_whole(folder)
    (folder / "val" / "000001.png").write_bytes(b"no image")
    lines: list[str | None] = []
    images, detections = detect_set([MODEL], whole, SEARCH, lines.append)
    assert list(images.files) == ["000000.png", "000002.png"]
    assert list(images.keys) == [0, 2]
    assert torch.equal(images.truths[1].boxes, whole.truths[2].boxes)
    expected = detections_in(whole.take("two", torch.tensor([0, 2])), list(range(10)))
    assert all_same(detections, expected)
    assert [bool(line) for line in lines] == [False, True, False]
    assert lines[1] is not None
    assert lines[1].startswith("000001.png: ")
    assert lines[1].endswith("; left out")


def test_a_set_of_only_bad_images_is_refused(tmp_path: Path) -> None:
    folder = scenes_folder(tmp_path / "scenes")
    whole = open_whole(folder)
    for file in whole.files:
        (folder / "val" / file).unlink()
    with pytest.raises(ValueError, match="no image of validation can be decoded"):
        detect_set([MODEL], whole, SEARCH)


def test_detections_do_not_depend_on_earlier_images() -> None:
    one = detect_set([MODEL], SCENES.test, SEARCH)[1]
    turned = SCENES.test.take("turned", torch.tensor([2, 1, 0]))
    assert all_same(one, detect_set([MODEL], turned, SEARCH)[1][::-1])
