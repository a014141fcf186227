from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detection import references
from tests.detection.references import iou_of_pixels, random_boxes

from reslab.detection import box_ops
from reslab.detection.box_ops import (
    LARGEST_GROWTH,
    REGION_STDS,
    areas,
    box_voting,
    boxes_to_network,
    clip,
    decode_boxes,
    encode_boxes,
    flip_boxes,
    intersection_areas,
    ioa,
    iou,
    large_enough,
    nms,
    nms_by_class,
    resize_image,
    resize_shortest_edge,
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
    """Widths x1 - x0 + 1 with inclusive corners equal x1 - x0 with exclusive ones."""
    one, other = torch.tensor([[10.0, 10, 19, 29]]), torch.tensor([[15.0, 5, 24, 14]])
    widened = torch.tensor([0.0, 0, 1, 1])
    assert iou(one + widened, other + widened).item() == pytest.approx(25 / (200 + 100 - 25))


def test_clipping_and_the_smallest_size() -> None:
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
    decoded = decode_boxes(references[:, None], deltas, REGION_STDS)
    assert decoded.shape == (3, 5, 4)
    torch.testing.assert_close(
        decoded[1, 2], decode_boxes(references[1], deltas[1, 2], REGION_STDS)
    )


def test_growth_is_bounded() -> None:
    decoded = decode_boxes(torch.tensor([0.0, 0, 16, 16]), torch.tensor([0.0, 0, 1e6, 5e3]))
    assert decoded.tolist() == pytest.approx([-492, -492, 508, 508])
    assert exp(LARGEST_GROWTH) == pytest.approx(62.5)


def test_gradients() -> None:
    rng = torch.Generator().manual_seed(0)
    references = random_boxes(3, 50, rng).double()
    deltas = torch.randn(3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: decode_boxes(references, d, REGION_STDS), deltas)
    boxes = random_boxes(3, 50, rng).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda b: encode_boxes(references, b, REGION_STDS), boxes)


# IoU of the second with the first 0.6, of the third with the second 0.6, with the first 1/3
CHAIN = torch.tensor([[0.0, 0, 8, 1], [2, 0, 10, 1], [4, 0, 12, 1], [20, 0, 28, 1]])


def test_nms_by_hand() -> None:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95])
    assert nms(CHAIN, scores, 0.5).tolist() == [3, 0, 2]  # a suppressed box suppresses nothing
    assert nms(CHAIN, scores, 0.3).tolist() == [3, 0]
    # an IoU equal to the threshold does not suppress
    assert nms(CHAIN, scores, 0.6).tolist() == [3, 0, 1, 2]
    assert nms(CHAIN, scores, 0.5, limit=2).tolist() == [3, 0]
    assert nms(CHAIN, scores, 0.5, limit=0).tolist() == []
    assert nms(CHAIN[:0], scores[:0], 0.5).tolist() == []


def test_equal_scores_stay_in_their_order() -> None:
    boxes = CHAIN[:1].repeat(600, 1)
    assert nms(boxes, torch.ones(600), 0.5).tolist() == [0]
    assert nms(boxes, torch.ones(600), 1.0).tolist() == list(range(600))


@pytest.mark.parametrize("block", [1, 3, 7, 256])
def test_nms_against_a_plain_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever blocks end; with only five distinct scores, so that many are equal."""
    monkeypatch.setattr(box_ops, "NMS_BLOCK", block)
    rng = torch.Generator().manual_seed(block)
    for threshold in (0.0, 0.3, 0.7):
        boxes = random_boxes(40, 20, rng)
        scores = torch.randint(0, 5, (40,), generator=rng) / 4
        expected = references.nms(boxes, scores, threshold)
        assert nms(boxes, scores, threshold).tolist() == expected
        assert nms(boxes, scores, threshold, limit=5).tolist() == expected[:5]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_classes_do_not_suppress_each_other(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    boxes, labels = random_boxes(30, 15, rng), torch.randint(0, 3, (30,), generator=rng)
    scores = torch.randint(0, 5, (30,), generator=rng) / 4
    expected = []
    for label in range(3):
        members = (labels == label).nonzero()[:, 0]
        indices = references.nms(boxes[members], scores[members], 0.3)
        expected += members[indices].tolist()
    expected.sort(key=lambda index: (-scores[index].item(), index))
    assert nms_by_class(boxes, scores, labels, 0.3).tolist() == expected
    assert nms_by_class(boxes, scores, labels, 0.3, limit=4).tolist() == expected[:4]
    assert nms_by_class(boxes[:0], scores[:0], labels[:0], 0.3).tolist() == []


def test_votes_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 5], [0, 0, 10, 4]])
    scores = torch.tensor([0.6, 0.3, 0.1, 0.9])
    # an IoU of 0.5 counts, 0.4 does not: weighted mean of the bottoms 10, 20 and 5
    expected = [[0, 0, 10, pytest.approx((0.6 * 10 + 0.3 * 20 + 0.1 * 5) / 1.0)]]
    assert box_voting(boxes[:1], boxes, scores).tolist() == expected
    assert box_voting(boxes[:1], boxes, scores, threshold=0.6).tolist() == boxes[:1].tolist()


def test_boxes_without_votes_stay() -> None:
    empty = torch.tensor([[3.0, 3, 3, 9]])
    assert box_voting(empty, empty, torch.ones(1)).tolist() == empty.tolist()
    assert box_voting(CHAIN, CHAIN, torch.zeros(4)).tolist() == CHAIN.tolist()


LENGTHS = st.integers(1, 5000)
SIZES = st.tuples(LENGTHS, LENGTHS)
# not so close to 0 that float32's relative precision is meaningless
CORNERS = st.floats(0.125, 5000, width=32, allow_subnormal=False)


@pytest.mark.parametrize(
    ("original", "resized"),
    [
        ((500, 375), (800, 600)),  # VOC
        ((375, 500), (600, 800)),
        ((640, 426), (901, 600)),  # 901.4
        ((640, 425), (904, 600)),  # 903.5: halves are rounded to even, as in cv2
        ((500, 300), (1000, 600)),
        ((501, 300), (1000, 599)),  # 1002 would exceed the limit; 598.8
        ((300, 501), (599, 1000)),
        ((500, 200), (1000, 400)),
        ((5002, 3000), (1000, 600)),  # 1000.4, which is 1000 pixels
        ((10_000, 3), (1000, 1)),  # 0.3 pixels become one
        ((600, 600), (600, 600)),
        ((1, 1), (600, 600)),
    ],
)
def test_resizing_by_hand(original: tuple[int, int], resized: tuple[int, int]) -> None:
    assert resize_shortest_edge(*original, 600, 1000) == resized


def test_resizing_with_other_limits_by_hand() -> None:
    assert resize_shortest_edge(128, 128, 64, 1000) == (64, 64)
    assert resize_shortest_edge(40, 30, 90, 100) == (100, 75)


@settings(deadline=None, max_examples=50)
@given(SIZES, st.integers(1, 1200), st.integers(0, 1000))
def test_a_side_has_its_limit_and_none_is_longer(
    original: tuple[int, int], shorter: int, more: int
) -> None:
    longest = shorter + more
    resized = resize_shortest_edge(*original, shorter, longest)
    assert max(resized) <= longest
    assert min(resized) == shorter or (max(resized) == longest and min(resized) < shorter)
    assert resize_shortest_edge(*original[::-1], shorter, longest) == resized[::-1]
    for one, other in ((0, 1), (1, 0)):  # each side is within half a pixel of the other's ratio
        exact = original[one] * resized[other] / original[other]
        assert (
            abs(resized[one] - exact) <= 0.5 + 0.5 * original[one] / original[other]
            or min(resized) == 1
        )


def test_boxes_of_a_resized_image_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 30], [10, 20, 30, 26]])
    original, resized = (40, 30), (100, 60)  # ratios 2.5 and 2
    expected = [[0, 0, 100, 60], [25, 40, 75, 52]]
    assert boxes_to_network(boxes, original, resized).tolist() == expected
    assert flip_boxes(torch.tensor([[5.0, 1, 7, 2]]), 10).tolist() == [[3, 1, 5, 2]]
    off_centre = torch.tensor([[2.0, 3, 12, 6]])
    assert boxes_to_network(off_centre, original, resized, flip=True).tolist() == [[70, 6, 95, 12]]
    assert boxes_to_network(boxes[:0], original, resized, flip=True).shape == (0, 4)


@settings(deadline=None, max_examples=50)
@given(SIZES, SIZES, st.lists(st.tuples(*[CORNERS] * 4), max_size=3), st.booleans())
def test_scaling_boxes_back_restores_them(
    original: tuple[int, int],
    resized: tuple[int, int],
    corners: list[tuple[float, ...]],
    flip: bool,
) -> None:
    boxes = torch.tensor(corners).reshape(-1, 4)
    forth = boxes_to_network(boxes, original, resized, flip)
    back = boxes_to_network(flip_boxes(forth, resized[0]) if flip else forth, resized, original)
    # the flip subtracts from the width, so rounding errors are relative to the width
    torch.testing.assert_close(back, boxes, rtol=1e-6, atol=1e-6 * max(original) * flip + 1e-30)
    assert torch.equal(
        flip_boxes(flip_boxes(boxes.round(), original[0]), original[0]), boxes.round()
    )


@pytest.mark.parametrize("flip", [False, True])
def test_pixels_go_where_their_boxes_go(flip: bool) -> None:
    """In an image enlarged twice, a white rectangle's edges are at half brightness at its box."""
    image = np.zeros((10, 16, 3), np.uint8)
    image[2:5, 3:9] = 255
    resized = resize_image(image, 20, 100, flip)
    assert resized.shape == (20, 32, 3)
    (x0, y0, x1, y1) = boxes_to_network(
        torch.tensor([[3, 2, 9, 5]]), (16, 10), (32, 20), flip
    ).tolist()[0]
    assert (x0, x1) == ((14, 26) if flip else (6, 18))
    inside = np.zeros((20, 32), bool)
    inside[int(y0) : int(y1), int(x0) : int(x1)] = True
    assert ((resized > 127).all(2) == inside).all()
    assert ((resized < 128).all(2) == ~inside).all()


def test_resizing_and_mirroring_commute() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    for shorter in (12, 30, 50):
        assert (
            resize_image(image, shorter, 80, True) == resize_image(image, shorter, 80)[:, ::-1]
        ).all()
    assert (resize_image(image, 30, 80) == image).all()


@pytest.mark.parametrize("shorter", [4, 8])
@pytest.mark.parametrize("flip", [False, True])
def test_pixels_are_a_writable_copy(shorter: int, flip: bool) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image.flags.writeable = False
    torch.from_numpy(resize_image(image, shorter, 20, flip)).add_(
        1
    )  # neither read-only nor reversed
    assert not image.any()
