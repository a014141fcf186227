"""Truths as a table, sets of images with boxes."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.boxes.sets import Detections, DetectionSet, GroundTruth, GroundTruthTable
from reslab.data.decode import BadImage


def truth(count: int, areas: bool = False) -> GroundTruth:
    boxes = torch.arange(4.0 * count).reshape(count, 4)
    none = torch.zeros(count, dtype=torch.bool)
    return GroundTruth(boxes, torch.arange(count), none, ~none, boxes[:, 0] if areas else None)


def test_a_table_of_truths_is_a_sequence() -> None:
    truths = GroundTruthTable(truth(5, areas=True), [2, 0, 3])
    assert [len(it) for it in truths] == [2, 0, 3] == [len(it) for it in truths[:]]
    assert truths[-1].labels.tolist() == [2, 3, 4] == truths[2].labels.tolist()
    assert truths[2].areas is not None
    assert truths[2].areas.tolist() == [8, 12, 16]
    assert truths[1].boxes.shape == (0, 4)
    with pytest.raises(IndexError):
        truths[3]


def test_a_part_of_what_is_true_or_found() -> None:
    kept = truth(3).take(torch.tensor([True, False, True]))
    assert kept.labels.tolist() == [0, 2]
    assert kept.crowd.tolist() == [True, True]
    assert kept.areas is None
    found = Detections(torch.zeros(3, 4), torch.tensor([0.1, 0.9, 0.5]), torch.arange(3))
    assert found.take(torch.tensor([1, 2])).labels.tolist() == [1, 2]


def test_images_are_taken_with_all_that_belongs_to_them() -> None:
    out = BytesIO()
    Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(out, "PNG")
    images = DetectionSet(
        "whole", ["a", "b", "c"], [truth(1), truth(0), truth(2)], ("x",), ("7",),
        lambda file: out.getvalue(), [(1, 1), (5, 3), (3, 5)], [10, 20, 30],
    )  # fmt: skip
    taken = images.take("some", torch.tensor([2, 1]))
    assert (taken.name, taken.files, taken.keys) == ("some", ["c", "b"], [30, 20])
    assert [len(it) for it in taken.truths] == [2, 0]
    assert taken.image(1).shape == (3, 5, 3)
    with pytest.raises(BadImage, match="c: 5 x 3 pixels, but annotated as 3 x 5"):
        taken.image(0)
