from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detection.references import iou_of_pixels, random_boxes

from reslab.detection.box_ops import (
    LARGEST_GROWTH,
    REGION_STDS,
    areas,
    clip,
    decode_boxes,
    encode_boxes,
    intersection_areas,
    ioa,
    iou,
    large_enough,
)  # fmt: skip

BOXES = torch.tensor([[0.0, 0, 4, 4], [2, 2, 6, 4], [4, 0, 6, 2], [1, 1, 1, 3]])


def test_areas_and_overlaps_by_hand() -> None:
    assert areas(BOXES).tolist() == [16, 8, 4, 0]
    assert areas(torch.tensor([3.0, 0, 1, 2])) == 0  # swapped corners
    shared = [[16, 4, 0, 0], [4, 8, 0, 0], [0, 0, 4, 0], [0, 0, 0, 0]]
    assert intersection_areas(BOXES, BOXES).tolist() == shared
    expected = torch.tensor([[1, 0.2, 0, 0], [0.2, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    assert torch.equal(iou(BOXES, BOXES), expected)
    assert ioa(BOXES, BOXES[:2]).tolist() == [[1, 0.25], [0.5, 1], [0, 0], [0, 0]]
    assert iou(BOXES, torch.zeros(0, 4)).shape == (4, 0)
    assert iou(torch.zeros(0, 4), BOXES).shape == (0, 4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_overlaps_are_those_of_counted_pixels(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    ones, others = (random_boxes(count, 12, rng) for count in (4, 5))
    expected = [[iou_of_pixels(a, b) for b in others.tolist()] for a in ones.tolist()]
    torch.testing.assert_close(iou(ones, others), torch.tensor(expected))


def test_the_released_codes_overlaps_of_inclusive_corners() -> None:
    """Its (x1 - x0 + 1) is our width of the same pixels."""
    one, other = torch.tensor([[10.0, 10, 19, 29]]), torch.tensor([[15.0, 5, 24, 14]])
    widened = torch.tensor([0.0, 0, 1, 1])
    assert iou(one + widened, other + widened).item() == pytest.approx(25 / (200 + 100 - 25))


def test_clipping_and_the_least_size() -> None:
    boxes = torch.tensor([[-3.0, 2, 5, 20], [8, -9, 30, -2], [1, 2, 3, 4]])
    clipped = [[0, 2, 5, 10], [8, 0, 9, 0], [1, 2, 3, 4]]
    assert clip(boxes, width=9, height=10).tolist() == clipped
    assert large_enough(clip(boxes, 9, 10), 2).tolist() == [True, False, True]
    assert large_enough(clip(boxes, 9, 10), 2.5).tolist() == [True, False, False]
    assert clip(boxes.view(3, 1, 4), 9, 10).tolist() == [[box] for box in clipped]


def test_regression_targets_by_hand() -> None:
    reference, box = torch.tensor([10.0, 20, 30, 60]), torch.tensor([15.0, 20, 55, 40])
    deltas = encode_boxes(reference, box)
    assert deltas.tolist() == pytest.approx([15 / 20, -10 / 40, log(2), log(0.5)])
    scaled = encode_boxes(reference, box, REGION_STDS)
    assert scaled.tolist() == pytest.approx([7.5, -2.5, log(2) / 0.2, log(0.5) / 0.2])
    assert decode_boxes(reference, deltas).tolist() == pytest.approx(box.tolist())
    assert decode_boxes(reference, torch.zeros(4)).tolist() == reference.tolist()


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([REGION_STDS, (1.0, 1.0, 1.0, 1.0)]))
def test_decoding_inverts_encoding(seed: int, stds: tuple[float, float, float, float]) -> None:
    rng = torch.Generator().manual_seed(seed)
    references, boxes = (random_boxes(6, 60, rng).double() for _ in range(2))
    back = decode_boxes(references, encode_boxes(references, boxes, stds), stds)
    torch.testing.assert_close(back, boxes, rtol=0, atol=1e-9)


def test_deltas_of_each_class_have_one_reference() -> None:
    rng = torch.Generator().manual_seed(0)
    references, deltas = random_boxes(3, 50, rng), torch.randn(3, 5, 4, generator=rng)
    found = decode_boxes(references[:, None], deltas, REGION_STDS)
    assert found.shape == (3, 5, 4)
    torch.testing.assert_close(found[1, 2], decode_boxes(references[1], deltas[1, 2], REGION_STDS))


def test_growth_is_bounded() -> None:
    found = decode_boxes(torch.tensor([0.0, 0, 16, 16]), torch.tensor([0.0, 0, 1e6, 5e3]))
    assert found.tolist() == pytest.approx([-492, -492, 508, 508])
    assert exp(LARGEST_GROWTH) == pytest.approx(62.5)


def test_gradients() -> None:
    rng = torch.Generator().manual_seed(0)
    references = random_boxes(3, 50, rng).double()
    deltas = torch.randn(3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: decode_boxes(references, d, REGION_STDS), deltas)
    boxes = random_boxes(3, 50, rng).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda b: encode_boxes(references, b, REGION_STDS), boxes)
