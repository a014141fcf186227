"""Ground truth as a table, and sets of images with boxes."""

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


def test_a_table_of_ground_truth_is_a_sequence() -> None:
    truths = GroundTruthTable(truth(5, areas=True), [2, 0, 3])
    assert [len(truth) for truth in truths] == [2, 0, 3] == [len(truth) for truth in truths[:]]
    assert truths[-1].labels.tolist() == [2, 3, 4] == truths[2].labels.tolist()
    assert truths[2].areas is not None
    assert truths[2].areas.tolist() == [8, 12, 16]
    assert truths[1].boxes.shape == (0, 4)
    with pytest.raises(IndexError):
        truths[3]


def test_images_of_a_table_are_taken_in_any_order() -> None:
    truths = GroundTruthTable(truth(7, areas=True), [2, 0, 3, 1, 1])
    rows = torch.tensor([4, 2, 1, 0, 2])
    taken = truths.take(rows)
    assert len(taken) == 5
    for row, image in zip(rows.tolist(), taken, strict=True):
        for name, column in vars(truths[row]).items():
            assert column is None or torch.equal(getattr(image, name), column)
    assert len(truths.take(torch.tensor([], dtype=torch.int64))) == 0


def test_objects_and_detections_are_selected_by_mask_or_index() -> None:
    selected = truth(3).take(torch.tensor([True, False, True]))
    assert selected.labels.tolist() == [0, 2]
    assert selected.crowd.tolist() == [True, True]
    assert selected.areas is None
    detections = Detections(torch.zeros(3, 4), torch.tensor([0.1, 0.9, 0.5]), torch.arange(3))
    assert detections.take(torch.tensor([1, 2])).labels.tolist() == [1, 2]


def test_take_selects_all_fields_of_an_image() -> None:
    out = BytesIO()
    Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(out, "PNG")
    images = DetectionSet(
        "whole", ["a", "b", "c"], [truth(1), truth(0), truth(2)], ("x",), ("7",),
        lambda file: out.getvalue(), [(1, 1), (5, 3), (3, 5)], [10, 20, 30],
    )  # fmt: skip
    taken = images.take("some", torch.tensor([2, 1]))
    assert (taken.name, taken.files, taken.keys) == ("some", ["c", "b"], [30, 20])
    assert [len(truth) for truth in taken.truths] == [2, 0]
    assert taken.image(1).shape == (3, 5, 3)
    with pytest.raises(BadImage, match="c: 5 x 3 pixels, but annotated as 3 x 5"):
        taken.image(0)
