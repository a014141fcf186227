import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reslab.detection.box_ops import (
    boxes_to_image,
    boxes_to_network,
    flip_boxes,
    resize_image,
    resize_shortest_edge,
)

LENGTHS = st.integers(1, 5000)
SIZES = st.tuples(LENGTHS, LENGTHS)
# far enough from 0 for float32's relative precision to mean something
CORNERS = st.floats(0.125, 5000, width=32, allow_subnormal=False)


@pytest.mark.parametrize(
    ("came", "shown"),
    [
        ((500, 375), (800, 600)),  # VOC
        ((375, 500), (600, 800)),
        ((640, 426), (901, 600)),  # 901.4
        ((640, 425), (904, 600)),  # 903.5, and halves go to even as cv2's
        ((500, 300), (1000, 600)),
        ((501, 300), (1000, 599)),  # 1002 would be too long; 598.8
        ((300, 501), (599, 1000)),
        ((500, 200), (1000, 400)),
        ((5002, 3000), (1000, 600)),  # 1000.4, which is 1000 pixels
        ((10_000, 3), (1000, 1)),  # 0.3 of a pixel is no image
        ((600, 600), (600, 600)),
        ((1, 1), (600, 600)),
    ],
)
def test_the_rule_by_hand(came: tuple[int, int], shown: tuple[int, int]) -> None:
    assert resize_shortest_edge(*came, 600, 1000) == shown


def test_another_rule_by_hand() -> None:
    assert resize_shortest_edge(128, 128, 64, 1000) == (64, 64)
    assert resize_shortest_edge(40, 30, 90, 100) == (100, 75)


@settings(deadline=None, max_examples=50)
@given(SIZES, st.integers(1, 1200), st.integers(0, 1000))
def test_a_side_is_what_was_asked_for_and_none_is_longer(
    came: tuple[int, int], shorter: int, more: int
) -> None:
    longest = shorter + more
    shown = resize_shortest_edge(*came, shorter, longest)
    assert max(shown) <= longest
    assert min(shown) == shorter or (max(shown) == longest and min(shown) < shorter)
    assert resize_shortest_edge(*came[::-1], shorter, longest) == shown[::-1]
    for one, other in ((0, 1), (1, 0)):  # each side is at most half a pixel from the other's ratio
        exact = came[one] * shown[other] / came[other]
        assert abs(shown[one] - exact) <= 0.5 + 0.5 * came[one] / came[other] or min(shown) == 1


def test_boxes_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 30], [10, 20, 30, 26]])
    came, shown = (40, 30), (100, 60)  # 2.5 across, 2 down
    expected = [[0, 0, 100, 60], [25, 40, 75, 52]]
    assert boxes_to_network(boxes, came, shown).tolist() == expected
    assert flip_boxes(torch.tensor([[5.0, 1, 7, 2]]), 10).tolist() == [[3, 1, 5, 2]]
    off_centre = torch.tensor([[2.0, 3, 12, 6]])
    assert boxes_to_network(off_centre, came, shown, flip=True).tolist() == [[70, 6, 95, 12]]
    assert boxes_to_image(torch.tensor([[70.0, 6, 95, 12]]), came, shown, flip=True).tolist() == (
        off_centre.tolist()
    )
    assert boxes_to_network(boxes[:0], came, shown, flip=True).shape == (0, 4)


@settings(deadline=None, max_examples=50)
@given(SIZES, SIZES, st.lists(st.tuples(*[CORNERS] * 4), max_size=3), st.booleans())
def test_boxes_there_and_back(
    came: tuple[int, int], shown: tuple[int, int], corners: list[tuple[float, ...]], flip: bool
) -> None:
    boxes = torch.tensor(corners).reshape(-1, 4)
    back = boxes_to_image(boxes_to_network(boxes, came, shown, flip), came, shown, flip)
    # a flip rounds like the width, whose size the distance from the other edge may have
    torch.testing.assert_close(back, boxes, rtol=1e-6, atol=1e-6 * max(came) * flip + 1e-30)
    assert torch.equal(flip_boxes(flip_boxes(boxes.round(), came[0]), came[0]), boxes.round())


@pytest.mark.parametrize("flip", [False, True])
def test_pixels_go_where_their_boxes_go(flip: bool) -> None:
    """A white rectangle: enlarged twice, its edges stay at half the brightness."""
    image = np.zeros((10, 16, 3), np.uint8)
    image[2:5, 3:9] = 255
    shown = resize_image(image, 20, 100, flip)
    assert shown.shape == (20, 32, 3)
    (x0, y0, x1, y1) = boxes_to_network(
        torch.tensor([[3, 2, 9, 5]]), (16, 10), (32, 20), flip
    ).tolist()[0]
    assert (x0, x1) == ((14, 26) if flip else (6, 18))
    inside = np.zeros((20, 32), bool)
    inside[int(y0) : int(y1), int(x0) : int(x1)] = True
    assert ((shown > 127).all(2) == inside).all()
    assert ((shown < 128).all(2) == ~inside).all()


def test_the_mirrored_image_is_the_image_mirrored() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    for shorter in (12, 30, 50):
        assert (
            resize_image(image, shorter, 80, True) == resize_image(image, shorter, 80)[:, ::-1]
        ).all()
    assert (resize_image(image, 30, 80) == image).all()


@pytest.mark.parametrize("shorter", [4, 8])
@pytest.mark.parametrize("flip", [False, True])
def test_torch_can_take_the_pixels(shorter: int, flip: bool) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image.flags.writeable = False
    torch.from_numpy(resize_image(image, shorter, 20, flip)).add_(
        1
    )  # neither read-only nor reversed
    assert not image.any()
