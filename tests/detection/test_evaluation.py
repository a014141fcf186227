from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.data.boxes.planted_boxes import open_whole
from tests.detection.small import SCENES, detector, renamed, scenes_folder

from reslab.data.boxes.sets import Detections
from reslab.detection.evaluation import detect_set, labels_in
from reslab.detection.inference import detect_objects
from reslab.detection.model import prepare_for_inference

DIGITS = tuple("0123456789")
IT = detector()
FAST = prepare_for_inference(IT)
SEARCH = IT.search.with_changes({"threshold": 0.0})  # so every class is found


def found_in(images, labels: list[int]) -> list[Detections]:
    """What the detector finds by itself, its classes called as the set does."""
    rows = []
    for index in range(len(images)):
        seen = detect_objects(FAST, images.image(index), SEARCH)
        own = torch.tensor(labels)[seen.labels]
        rows.append(Detections(seen.boxes[own >= 0], seen.scores[own >= 0], own[own >= 0]))
    return rows


def same(one: list[Detections], other: list[Detections]) -> bool:
    return all(
        torch.equal(a.boxes, b.boxes)
        and torch.equal(a.scores, b.scores)
        and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


def test_each_image_is_searched_in_the_order_of_the_set() -> None:
    heard: list[str | None] = []
    seen, found = detect_set([IT], SCENES.test, SEARCH, heard.append)
    assert seen is SCENES.test
    assert heard == [None] * 3
    assert same(found, found_in(SCENES.test, list(range(10))))
    assert len({len(it) for it in found} - {0}) >= 1


def test_labels_are_those_of_the_set() -> None:
    """The set has the digits in another order, and does not know 3."""
    order = (9, 8, 7, 6, 5, 4, 2, 1, 0)
    names = tuple(str(digit) for digit in order)
    others = renamed(SCENES, names, names).test
    assert labels_in(IT, others).tolist() == [8, 7, 6, -1, 5, 4, 3, 2, 1, 0]
    _, found = detect_set([IT], others, SEARCH)
    expected = found_in(SCENES.test, [8, 7, 6, -1, 5, 4, 3, 2, 1, 0])
    assert same(found, expected)
    assert sum(map(len, expected)) < sum(len(it) for it in found_in(SCENES.test, list(range(10))))


def test_names_decide_where_ids_are_only_numbers() -> None:
    """Every COCO folder numbers its categories from 1, whatever they are."""
    numbered = renamed(SCENES, DIGITS, tuple(str(number + 1) for number in range(10))).test
    assert labels_in(IT, numbered).tolist() == list(range(10))
    few = renamed(SCENES, ("0", "1"), ("1", "2")).test  # ids that the detector has for others
    assert labels_in(IT, few).tolist() == [0, 1, *[-1] * 8]
    cars = renamed(SCENES, ("car", "bus"), ("1", "2")).test
    with pytest.raises(ValueError, match="does not know a class of test: no class 'car'"):
        labels_in(IT, cars)


def test_ids_tell_classes_of_one_name_apart() -> None:
    """COCO-like sets may have two cranes: the bird and the machine."""
    names, ids = ("crane", "crane", "dog"), ("4", "7", "9")
    it = replace(IT, classes=names, ids=ids)
    assert labels_in(it, renamed(SCENES, names, ids).test).tolist() == [0, 1, 2]
    assert labels_in(it, renamed(SCENES, names[::-1], ids[::-1]).test).tolist() == [2, 1, 0]


def test_an_unknown_class_is_a_line_with_the_nearest() -> None:
    it = replace(IT, classes=("person", "tiger"), ids=("1", "2"))
    with pytest.raises(ValueError, match="did you mean 'tiger'") as caught:
        labels_in(it, renamed(SCENES, ("tigger",), ("5",)).test)
    assert "\n" not in str(caught.value)


def test_bad_images_are_told_of_and_left_out(tmp_path: Path) -> None:
    folder = scenes_folder(tmp_path / "scenes")
    whole = open_whole(folder)
    (folder / "val" / "000001.png").write_bytes(b"no image")
    heard: list[str | None] = []
    seen, found = detect_set([IT], whole, SEARCH, heard.append)
    assert list(seen.files) == ["000000.png", "000002.png"]
    assert list(seen.keys) == [0, 2]
    assert torch.equal(seen.truths[1].boxes, whole.truths[2].boxes)
    expected = found_in(whole.take("two", torch.tensor([0, 2])), list(range(10)))
    assert same(found, expected)
    assert [bool(line) for line in heard] == [False, True, False]
    assert heard[1] is not None
    assert heard[1].startswith("000001.png: ")
    assert heard[1].endswith("; left out")


def test_a_set_of_bad_images_alone_is_refused(tmp_path: Path) -> None:
    folder = scenes_folder(tmp_path / "scenes")
    whole = open_whole(folder)
    for file in whole.files:
        (folder / "val" / file).unlink()
    with pytest.raises(ValueError, match="no image of validation can be decoded"):
        detect_set([IT], whole, SEARCH)


def test_the_network_is_looked_at_with_no_memory_of_images_before() -> None:
    one = detect_set([IT], SCENES.test, SEARCH)[1]
    turned = SCENES.test.take("turned", torch.tensor([2, 1, 0]))
    assert same(one, detect_set([IT], turned, SEARCH)[1][::-1])
