"""digit-scenes: stateless, without leaks, legible, and equal to their COCO folder."""

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
from reslab.data.datasets import MemorySplits
from reslab.data.digits import load_digits


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
    scene = sets.train.image(2)
    others = (sets.train.image(1), sets.test.image(2), digit_scenes(train=3, seed=1).train)
    assert (scene != others[0]).any()
    assert (scene != others[1]).any()
    assert (scene != others[2].image(2)).any()


def test_every_scene_has_digits_that_fit_and_hardly_overlap(digits: MemorySplits) -> None:
    scenes = Scenes(digits.train, "train", 0)
    layouts = [scenes.layout(number) for number in range(400)]
    assert {len(layout) for layout in layouts} == {1, 2, 3, 4, 5, 6}
    assert np.mean([len(layout) for layout in layouts]) > 2.5
    heights = [placed.height for layout in layouts for placed in layout]
    assert (min(heights), max(heights)) == HEIGHTS
    for layout in layouts:
        assert all(placed.x >= 1 and placed.x + placed.width < SCENE_SIDE for placed in layout)
        assert all(placed.y >= 1 and placed.y + placed.height < SCENE_SIDE for placed in layout)
        assert all(a.overlap(b) <= MAX_OVERLAP for a, b in combinations(layout, 2))
    labels = torch.cat([truth.labels for truth in scenes.truths(400)])
    assert (labels.bincount(minlength=10) > 60).all()


def test_test_scenes_have_no_training_digits(sets: DetectionSplits, digits: MemorySplits) -> None:
    """Test scenes use only test digits; training scenes are made from other images."""
    train, test = (Scenes(part, "train", 0) for part in (digits.train, digits.test))
    assert (len(train.inks), len(test.inks)) == (1437, 360)
    assert not {ink.tobytes() for ink in train.inks} & {ink.tobytes() for ink in test.inks}
    painted = Scenes(digits.test, "test", 0)
    assert (painted.draw(4) == sets.test.image(4)).all()


def test_boxes_are_tight(digits: MemorySplits) -> None:
    """Pixels that differ from the background lie in the boxes and reach their edges."""
    scenes = Scenes(digits.train, "train", 0)
    bare = background(scenes._rng(11, 1))
    changed = np.abs(scenes.draw(11) - bare).max(2) > 30  # the noise has a standard deviation of 4
    for box in scenes.truths(12)[11].boxes.int().tolist():
        x0, y0, x1, y1 = box
        inside = changed[y0:y1, x0:x1]
        assert all(edge.any() for edge in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]))
        changed[y0:y1, x0:x1] = False
    assert not changed.any()


def test_digits_stand_out_from_the_background(digits: MemorySplits) -> None:
    scenes = Scenes(digits.train, "train", 0)
    for number in range(20):
        grey, bare = scenes.draw(number).mean(2), background(scenes._rng(number, 1)).mean(2)
        for box in scenes.truths(number + 1)[number].boxes.int().tolist():
            x0, y0, x1, y1 = box
            difference = np.abs(grey[y0:y1, x0:x1] - bare[y0:y1, x0:x1])
            assert difference.max() > CONTRAST / 2


def test_saved_scenes_are_a_coco_folder(sets: DetectionSplits, tmp_path: Path) -> None:
    events: list[None] = []
    save_scenes(tmp_path, sets, events.append)
    assert len(events) == 18
    opened = open_detection(tmp_path)
    for saved, scenes in ((opened.train, sets.train), (opened.test, sets.test)):
        assert saved.files == list(scenes.files)
        assert saved.keys == list(scenes.keys)
        assert saved.sizes == list(scenes.sizes)
        assert saved.classes == scenes.classes
        for index in range(len(scenes)):
            assert torch.equal(saved.truths[index].boxes, scenes.truths[index].boxes)
            assert torch.equal(saved.truths[index].labels, scenes.truths[index].labels)
            assert (saved.image(index) == scenes.image(index)).all()
