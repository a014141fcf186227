from collections import Counter
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reslab.data.augment import ResizedCrop, ScaleCrop, draw_flips, draw_offsets, flip, pad_and_crop
from reslab.data.resize import shorter_side

ALMOST = 1 - 2**-53  # the largest number below one
# training makes the smallest numbers zero in its process, which other tests may have shared
DRAWS = st.floats(0, ALMOST, allow_subnormal=False)


def grid(count: int) -> list[float]:
    """Numbers that fall into each of `count` equal parts of [0, 1)."""
    return [(part + 0.5) / count for part in range(count)]


def test_each_shorter_side_is_drawn_equally_often() -> None:
    """256 and 480 too: at side s, the first crop of a square image of 480 is 224 * 480/s wide."""
    augmentation = ScaleCrop()
    widths = Counter()
    for draw in grid(225 * 4):
        left, top, right, bottom = augmentation.crop(480, 480, [draw, 0, 0, 0.9])[0]
        assert (left, top) == (0, 0)
        assert right == bottom
        widths[round(224 * 480 / right, 6)] += 1
    assert widths == dict.fromkeys(map(float, range(256, 481)), 4)


def test_every_position_of_the_resized_image_occurs() -> None:
    """Hand-worked: 6 x 4 at shorter side 4 has room for 4 x 2 crops of 3."""
    augmentation = ScaleCrop(size=3, shorter_side=(4, 4))
    boxes = Counter(
        augmentation.crop(6, 4, [0.5, x, y, 0.9])[0] for x, y in product(grid(40), grid(40))
    )
    expected = {(x, y, x + 3, y + 3): 200 for x in range(4) for y in range(2)}
    assert boxes == expected


def test_a_box_lies_in_the_original_image() -> None:
    """100 x 50 at shorter side 100 is 200 x 100; its last crop of 80 begins at (120, 20)."""
    augmentation = ScaleCrop(size=80, shorter_side=(100, 100))
    assert augmentation.crop(100, 50, [0, ALMOST, ALMOST, 0.2]) == ((60, 10, 100, 50), True)


def test_half_of_the_images_are_mirrored_and_none_without_flip() -> None:
    for augmentation in (ScaleCrop(), ResizedCrop()):
        start = [0.5] * (augmentation.draws - 1)
        flips = [augmentation.crop(300, 300, [*start, draw])[1] for draw in grid(10)]
        assert flips == [True] * 5 + [False] * 5
        never = augmentation.model_copy(update={"flip": False})
        assert not never.crop(300, 300, [*start, 0.0])[1]


@given(st.integers(1, 5000), st.integers(1, 5000), st.lists(DRAWS, min_size=4))
def test_scale_crops_lie_inside(width: int, height: int, draws: list[float]) -> None:
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
def test_resized_crops_are_whole_pixels_inside(
    width: int, height: int, draws: list[float], ratio: tuple[float, float]
) -> None:
    x0, y0, x1, y1 = ResizedCrop(ratio=ratio).crop(width, height, draws)[0]
    assert all(value == int(value) for value in (x0, y0, x1, y1))
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height


def test_a_resized_crop_has_the_area_and_the_shape_drawn() -> None:
    # area halfway from 0.08 to 1 is 0.54; the middle of the logarithms of 3/4 and 4/3 is a square
    draws = [0.5] * ResizedCrop.draws
    x0, y0, x1, y1 = ResizedCrop().crop(1000, 1000, draws)[0]
    assert (x1 - x0, y1 - y0) == (735, 735)  # sqrt(540,000) = 734.8
    assert (x0, y0) == (133, 133)  # half of the 266 places
    draws[1] = 0.0
    x0, y0, x1, y1 = ResizedCrop().crop(1000, 1000, draws)[0]
    assert (x1 - x0, y1 - y0) == (636, 849)  # sqrt(540,000 * 3/4), sqrt(540,000 / (3/4))


def test_areas_are_uniform_where_every_shape_fits() -> None:
    rng = torch.Generator().manual_seed(0)
    augmentation = ResizedCrop(area=(0.1, 0.5))
    rows = torch.rand(2000, augmentation.draws, generator=rng, dtype=torch.float64).tolist()
    boxes = [augmentation.crop(1000, 1000, row)[0] for row in rows]
    areas = torch.tensor([(x1 - x0) * (y1 - y0) / 1e6 for x0, y0, x1, y1 in boxes])
    quantiles = areas.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    expected = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    assert torch.allclose(quantiles, expected, atol=0.02)


def test_the_second_shape_is_taken_where_the_first_does_not_fit() -> None:
    draws = [0.5] * ResizedCrop.draws
    draws[0:2] = [ALMOST, 0.0]  # the whole area, taller than the square image
    draws[2:4] = [0.0, 0.5]  # 0.08 of it, a square
    x0, y0, x1, y1 = ResizedCrop().crop(1000, 1000, draws)[0]
    assert (x1 - x0, y1 - y0) == (283, 283)


def test_the_middle_is_taken_where_no_shape_fits() -> None:
    draws = [ALMOST] * ResizedCrop.draws
    assert ResizedCrop().crop(1000, 300, draws)[0] == (300, 0, 700, 300)  # 4/3 of 300 wide
    assert ResizedCrop().crop(300, 1000, draws)[0] == (0, 300, 300, 700)  # 3/4 is 300 by 400
    assert ResizedCrop().crop(1, 1, draws)[0] == (0, 0, 1, 1)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_all_81_offsets_occur_about_equally_and_each_is_a_true_crop() -> None:
    """An image whose pixels are all different tells where its crop came from."""
    image = torch.arange(1.0, 1025).reshape(1, 1, 32, 32)
    padded = torch.zeros(40, 40)
    padded[4:36, 4:36] = image[0, 0]
    count = 81 * 60
    crops = pad_and_crop(image.expand(count, 1, 32, 32), 4, draw_offsets(count, 4, rng()))
    windows = {(y, x): padded[y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
    seen = dict.fromkeys(windows, 0)
    for crop in crops[:, 0]:
        # pixel (16, 16) of a crop at (y, x) is pixel (y + 12, x + 12) of the image
        y, x = divmod(int(crop[16, 16]) - 1, 32)
        offset = (y - 12, x - 12)
        assert torch.equal(crop, windows[offset])
        seen[offset] += 1
    # 60 expected each; a binomial count leaves 25..110 once in 10^5 draws of all 81
    assert all(25 < times < 110 for times in seen.values())


def test_channels_move_together() -> None:
    image = torch.rand(5, 1, 16, 16, generator=rng()).expand(5, 3, 16, 16)
    crops = pad_and_crop(image, 2, draw_offsets(5, 2, rng(1)))
    assert torch.equal(crops[:, 0], crops[:, 1])
    assert torch.equal(crops[:, 0], crops[:, 2])


def test_flip_mirrors_about_half_and_nothing_else() -> None:
    images = torch.rand(2000, 1, 2, 3, generator=rng())
    flipped = flip(images, draw_flips(2000, rng(1)))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 900 < mirrored.sum() < 1100


def test_draws_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    offsets, flips = draw_offsets(8, 4, rng(7)), draw_flips(8, rng(8))
    torch.manual_seed(2)
    assert torch.equal(offsets, draw_offsets(8, 4, rng(7)))
    assert torch.equal(flips, draw_flips(8, rng(8)))
