from collections import Counter
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reslab.data.augment import ResizedCrop, ScaleCrop
from reslab.data.resize import shorter_side

ALMOST = 1 - 2**-53  # the largest number below one
# denormals are flushed to zero in a process that has trained, possibly in another test
DRAWS = st.floats(0, ALMOST, allow_subnormal=False)


def grid(count: int) -> list[float]:
    """Return one number in each of `count` equal parts of [0, 1)."""
    return [(part + 0.5) / count for part in range(count)]


def test_each_shorter_side_is_sampled_equally_often() -> None:
    """Including 256 and 480: at side s, a crop of a 480 x 480 image is 224 * 480/s wide."""
    augmentation = ScaleCrop()
    widths = Counter()
    for draw in grid(225 * 4):
        left, top, right, bottom = augmentation.crop(480, 480, [draw, 0, 0, 0.9])[0]
        assert (left, top) == (0, 0)
        assert right == bottom
        widths[round(224 * 480 / right, 6)] += 1
    assert widths == dict.fromkeys(map(float, range(256, 481)), 4)


def test_every_position_of_the_resized_image_occurs() -> None:
    """By hand: a 6 x 4 image at shorter side 4 has 4 x 2 crops of side 3."""
    augmentation = ScaleCrop(size=3, shorter_side=(4, 4))
    boxes = Counter(
        augmentation.crop(6, 4, [0.5, x, y, 0.9])[0] for x, y in product(grid(40), grid(40))
    )
    expected = {(x, y, x + 3, y + 3): 200 for x in range(4) for y in range(2)}
    assert boxes == expected


def test_a_box_lies_in_the_original_image() -> None:
    """A 100 x 50 image at shorter side 100 is 200 x 100; its last crop of 80 is at (120, 20)."""
    augmentation = ScaleCrop(size=80, shorter_side=(100, 100))
    assert augmentation.crop(100, 50, [0, ALMOST, ALMOST, 0.2]) == ((60, 10, 100, 50), True)


def test_half_of_the_images_are_mirrored_or_none_if_flip_is_off() -> None:
    for augmentation in (ScaleCrop(), ResizedCrop()):
        start = [0.5] * (augmentation.draws - 1)
        flips = [augmentation.crop(300, 300, [*start, draw])[1] for draw in grid(10)]
        assert flips == [True] * 5 + [False] * 5
        never = augmentation.model_copy(update={"flip": False})
        assert not never.crop(300, 300, [*start, 0.0])[1]


@given(st.integers(1, 5000), st.integers(1, 5000), st.lists(DRAWS, min_size=4))
def test_scale_crops_lie_inside_the_image(width: int, height: int, draws: list[float]) -> None:
    (x0, y0, x1, y1), _ = ScaleCrop().crop(width, height, draws[:4])
    assert 0 <= x0 < x1 <= width * (1 + 1e-9)
    assert 0 <= y0 < y1 <= height * (1 + 1e-9)
    scaled = shorter_side(width, height, 256 + int(draws[0] * 225))
    assert (x1 - x0) * scaled[0] == pytest.approx(224 * width)
    assert (y1 - y0) * scaled[1] == pytest.approx(224 * height)


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.lists(DRAWS, min_size=ResizedCrop.draws, max_size=ResizedCrop.draws),
    st.sampled_from([(0.75, 4 / 3), (2.0, 3.0), (0.1, 0.2)]),
)
def test_resized_crops_are_integer_boxes_inside_the_image(
    width: int, height: int, draws: list[float], ratio: tuple[float, float]
) -> None:
    x0, y0, x1, y1 = ResizedCrop(ratio=ratio).crop(width, height, draws)[0]
    assert all(value == int(value) for value in (x0, y0, x1, y1))
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height


def test_a_resized_crop_has_the_sampled_area_and_shape() -> None:
    # halfway from 0.08 to 1 is an area of 0.54; halfway from log 3/4 to log 4/3 is a square
    draws = [0.5] * ResizedCrop.draws
    x0, y0, x1, y1 = ResizedCrop().crop(1000, 1000, draws)[0]
    assert (x1 - x0, y1 - y0) == (735, 735)  # sqrt(540,000) = 734.8
    assert (x0, y0) == (133, 133)  # the middle of 266 positions
    draws[1] = 0.0
    x0, y0, x1, y1 = ResizedCrop().crop(1000, 1000, draws)[0]
    assert (x1 - x0, y1 - y0) == (636, 849)  # sqrt(540,000 * 3/4), sqrt(540,000 / (3/4))


def test_areas_are_uniform_if_every_shape_fits() -> None:
    rng = torch.Generator().manual_seed(0)
    augmentation = ResizedCrop(area=(0.1, 0.5))
    rows = torch.rand(2000, augmentation.draws, generator=rng, dtype=torch.float64).tolist()
    boxes = [augmentation.crop(1000, 1000, row)[0] for row in rows]
    areas = torch.tensor([(x1 - x0) * (y1 - y0) / 1e6 for x0, y0, x1, y1 in boxes])
    quantiles = areas.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    expected = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    assert torch.allclose(quantiles, expected, atol=0.02)


def test_the_second_shape_is_used_if_the_first_does_not_fit() -> None:
    draws = [0.5] * ResizedCrop.draws
    draws[0:2] = [ALMOST, 0.0]  # the whole area, but taller than the square image
    draws[2:4] = [0.0, 0.5]  # 0.08 of the area, a square
    x0, y0, x1, y1 = ResizedCrop().crop(1000, 1000, draws)[0]
    assert (x1 - x0, y1 - y0) == (283, 283)


def test_the_centre_is_used_if_no_shape_fits() -> None:
    draws = [ALMOST] * ResizedCrop.draws
    assert ResizedCrop().crop(1000, 300, draws)[0] == (300, 0, 700, 300)  # 400 x 300, ratio 4/3
    assert ResizedCrop().crop(300, 1000, draws)[0] == (0, 300, 300, 700)  # 300 x 400, ratio 3/4
    assert ResizedCrop().crop(1, 1, draws)[0] == (0, 0, 1, 1)
