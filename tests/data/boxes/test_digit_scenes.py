"""digit-scenes: stateless, without leaks, legible, and the same as a COCO folder."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from reslab.data.boxes.digit_scenes import (
    CONTRAST,
    HEIGHTS,
    MAX_OVERLAP,
    SCENE_SIDE,
    Scenes,
    background,
    digit_scenes,
    save_scenes,
)
from reslab.data.boxes.folder import open_detection
from reslab.data.boxes.sets import DetectionSplits
from reslab.data.builtin import load_digits
from reslab.data.datasets import MemorySplits


@pytest.fixture(scope="module")
def digits() -> MemorySplits:
    return load_digits()


@pytest.fixture(scope="module")
def sets() -> DetectionSplits:
    return digit_scenes(train=12, test=6)


def test_a_scene_is_a_function_of_seed_part_and_number(sets: DetectionSplits) -> None:
    again = digit_scenes(train=7, test=3)
    assert (again.train.image(6) == sets.train.image(6)).all()
    assert torch.equal(again.train.truths[6].boxes, sets.train.truths[6].boxes)
    here = sets.train.image(2)
    others = (sets.train.image(1), sets.test.image(2), digit_scenes(train=3, seed=1).train)
    assert (here != others[0]).any()
    assert (here != others[1]).any()
    assert (here != others[2].image(2)).any()


def test_every_scene_has_digits_that_fit_and_hardly_overlap(digits: MemorySplits) -> None:
    scenes = Scenes(digits.train, "train", 0)
    layouts = [scenes.layout(number) for number in range(400)]
    assert {len(layout) for layout in layouts} == {1, 2, 3, 4, 5, 6}
    assert np.mean([len(layout) for layout in layouts]) > 2.5
    heights = [it.height for layout in layouts for it in layout]
    assert (min(heights), max(heights)) == HEIGHTS
    for layout in layouts:
        assert all(it.x >= 1 and it.x + it.width < SCENE_SIDE for it in layout)
        assert all(it.y >= 1 and it.y + it.height < SCENE_SIDE for it in layout)
        assert all(a.overlap(b) <= MAX_OVERLAP for a, b in combinations(layout, 2))
    labels = torch.cat([truth.labels for truth in scenes.truths(400)])
    assert (labels.bincount(minlength=10) > 60).all()


def test_test_scenes_hold_no_digit_of_training(sets: DetectionSplits, digits: MemorySplits) -> None:
    """Painted with test ink alone: the train part's scenes are made from other images."""
    train, test = (Scenes(part, "train", 0) for part in (digits.train, digits.test))
    assert (len(train.inks), len(test.inks)) == (1437, 360)
    assert not {ink.tobytes() for ink in train.inks} & {ink.tobytes() for ink in test.inks}
    painted = Scenes(digits.test, "test", 0)
    assert (painted.draw(4) == sets.test.image(4)).all()


def test_a_box_is_as_tight_as_its_ink(digits: MemorySplits) -> None:
    """What differs from the bare background lies in the boxes and reaches their edges."""
    scenes = Scenes(digits.train, "train", 0)
    bare = background(scenes._rng(11, 1))
    changed = np.abs(scenes.draw(11) - bare).max(2) > 30  # the noise has a deviation of 4
    for box in scenes.truths(12)[11].boxes.int().tolist():
        x0, y0, x1, y1 = box
        inside = changed[y0:y1, x0:x1]
        assert all(edge.any() for edge in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]))
        changed[y0:y1, x0:x1] = False
    assert not changed.any()


def test_ink_stands_out(digits: MemorySplits) -> None:
    scenes = Scenes(digits.train, "train", 0)
    for number in range(20):
        grey, bare = scenes.draw(number).mean(2), background(scenes._rng(number, 1)).mean(2)
        for box in scenes.truths(number + 1)[number].boxes.int().tolist():
            x0, y0, x1, y1 = box
            difference = np.abs(grey[y0:y1, x0:x1] - bare[y0:y1, x0:x1])
            assert difference.max() > CONTRAST / 2


def test_written_scenes_are_a_coco_folder(sets: DetectionSplits, tmp_path: Path) -> None:
    events: list[None] = []
    save_scenes(tmp_path, sets, events.append)
    assert len(events) == 18
    found = open_detection(tmp_path)
    for here, there in ((found.train, sets.train), (found.test, sets.test)):
        assert here.files == list(there.files)
        assert here.keys == list(there.keys)
        assert here.sizes == list(there.sizes)
        assert here.classes == there.classes
        for index in range(len(there)):
            assert torch.equal(here.truths[index].boxes, there.truths[index].boxes)
            assert torch.equal(here.truths[index].labels, there.truths[index].labels)
            assert (here.image(index) == there.image(index)).all()
