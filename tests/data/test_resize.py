import random
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reslab.data.decode import load_image
from reslab.data.resize import (
    Box,
    Interpolation,
    centre_crop,
    crop_box,
    lowest_row,
    resize_whole,
    resize_whole_to_centre,
    resized_crop,
    shorter_side,
)


def by_pillow(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize the whole image with Pillow, which resized_crop must equal."""
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def noise(width: int, height: int) -> np.ndarray:
    """Return random pixels, on which differences would be largest."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other.astype(int))


def test_the_shorter_side_is_as_requested() -> None:
    assert shorter_side(500, 375, 256) == (341, 256)  # 341.33
    assert shorter_side(375, 500, 480) == (480, 640)
    assert shorter_side(7, 7, 3) == (3, 3)
    assert shorter_side(1, 100, 2) == (2, 200)
    assert shorter_side(300, 200, 255) == (382, 255)  # 382.5: rounded down


@pytest.mark.parametrize("side", [256, 333, 480])
def test_a_resized_crop_equals_the_crop_of_the_resized_photograph(shared: Path, side: int) -> None:
    """On every photograph, at a random position, up to rounding."""
    rng = random.Random(side)
    paths = sorted((shared / "imagenet" / "samples").rglob("*.JPEG"))
    assert len(paths) == 100
    worst, sums = 0, 0.0
    for path in paths:
        image = load_image(path.read_bytes(), path.name)
        height, width = image.shape[:2]
        scaled = shorter_side(width, height, side)
        left, top = rng.randint(0, scaled[0] - 224), rng.randint(0, scaled[1] - 224)
        ours = resized_crop(image, crop_box(width, height, scaled, left, top, 224), (224, 224))
        plain = by_pillow(image, scaled)[top : top + 224, left : left + 224]
        worst = max(worst, int(differences(ours, plain).max()))
        sums += float(differences(ours, plain).mean())
    assert worst <= 2
    assert sums / len(paths) < 0.02


def central(image: np.ndarray, size: int) -> np.ndarray:
    top, left = (round((length - size) / 2) for length in image.shape[:2])
    return image[top : top + size, left : left + size]


@pytest.mark.parametrize(("side", "size"), [(256, 224), (224, 224), (480, 299)])
def test_no_pixel_differs_from_the_centre_of_the_resized_photograph(
    shared: Path, side: int, size: int
) -> None:
    paths = [*sorted((shared / "imagenet" / "samples").rglob("*.JPEG"))[:60]]
    paths += sorted((shared / "detection" / "coco128").rglob("*.jpg"))[:40]
    assert len(paths) == 100
    for path in paths:
        image = load_image(path.read_bytes(), path.name)
        height, width = image.shape[:2]
        whole = by_pillow(image, shorter_side(width, height, side))
        assert np.array_equal(resize_whole_to_centre(image, side, size), central(whole, size))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 90), st.integers(1, 200), st.integers(1, 40), st.data())
def test_no_pixel_differs_from_the_centre_of_any_resized_image(
    width: int, height: int, side: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, side))
    image = noise(width, height)
    kind = data.draw(st.sampled_from(get_args(Interpolation)))
    whole = resize_whole(image, side, kind)
    assert np.array_equal(resize_whole_to_centre(image, side, size, kind), central(whole, size))


@pytest.mark.parametrize(("width", "height"), [(61, 40), (40, 61), (20, 30), (90, 90)])
def test_a_bicubic_centre_is_that_of_torchvision_and_timm(width: int, height: int) -> None:
    """They resize the whole image with Pillow, then crop; sizes and offsets are theirs."""
    image = noise(width, height)
    short = min(width, height)
    scaled = [int(36 * side / short) if side > short else 36 for side in (width, height)]
    left, top = (round((side - 32) / 2.0) for side in scaled)
    whole = Image.fromarray(image).resize((scaled[0], scaled[1]), Image.Resampling.BICUBIC)
    theirs = np.asarray(whole.crop((left, top, left + 32, top + 32)))
    assert np.array_equal(resize_whole_to_centre(image, 36, 32, "bicubic"), theirs)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(8, 60),
    st.floats(0, 1, allow_subnormal=False),
    st.floats(0, 1, allow_subnormal=False),
)
def test_a_resized_crop_equals_the_crop_of_the_resized_image(
    width: int, height: int, side: int, across: float, down: float
) -> None:
    """For any shape, enlarged and reduced, at edges and corners."""
    image = noise(width, height)
    scaled = shorter_side(width, height, side)
    left, top = round(across * (scaled[0] - 8)), round(down * (scaled[1] - 8))
    ours = resized_crop(image, crop_box(width, height, scaled, left, top, 8), (8, 8))
    plain = by_pillow(image, scaled)[top : top + 8, left : left + 8]
    assert differences(ours, plain).max() <= 2


@pytest.mark.parametrize(("width", "height"), [(4000, 9), (9, 4000), (1, 1), (1, 300), (3, 2)])
def test_extreme_shapes(width: int, height: int) -> None:
    image = noise(width, height)
    scaled = shorter_side(width, height, 16)
    whole = by_pillow(image, scaled)
    assert np.array_equal(resize_whole(image, 16), whole)
    for left, top in [(0, 0), (scaled[0] - 16, scaled[1] - 16)]:
        ours = resized_crop(image, crop_box(width, height, scaled, left, top, 16), (16, 16))
        assert differences(ours, whole[top : top + 16, left : left + 16]).max() <= 2


def test_one_pixel_fills_everything() -> None:
    image = np.array([[[10, 20, 30]]], np.uint8)
    assert (centre_crop(image, 256, 224) == (10, 20, 30)).all()


def test_a_long_strip_is_not_resized_whole() -> None:
    """The resized strip, 480 times as large, would take gigabytes; a crop does not."""
    image = np.full((1, 20_000, 3), 7, np.uint8)
    scaled = shorter_side(20_000, 1, 480)
    part = resized_crop(image, crop_box(20_000, 1, scaled, scaled[0] - 224, 0, 224), (224, 224))
    assert part.shape == (224, 224, 3)
    assert (part == 7).all()


def test_a_crop_computed_by_hand() -> None:
    """Halving with a triangle filter of support 2: weights 1 3 3 1, and 3 3 1 at the edge."""
    row = np.array([0, 80, 160, 240, 240, 240], np.uint8)
    image = np.repeat(np.repeat(row[None, :, None], 2, axis=0), 3, axis=2)
    small = resized_crop(image, (0, 0, 6, 2), (3, 1))[0, :, 0].tolist()
    #        (3*0 + 3*80 + 160) / 7    (80 + 480 + 720 + 240) / 8    240
    assert small == [57, 190, 240]


def test_a_flip_is_the_mirror_image() -> None:
    image = noise(40, 30)
    boxes: list[tuple[Box, tuple[int, int]]] = [
        ((3.5, 2.25, 33.5, 20.25), (11, 13)),  # resized
        ((4, 5, 14, 17), (10, 12)),  # a crop without resizing
    ]
    for box, size in boxes:
        plain, mirrored = resized_crop(image, box, size), resized_crop(image, box, size, flip=True)
        assert np.array_equal(mirrored, plain[:, ::-1])


def test_a_box_of_the_same_size_is_not_interpolated() -> None:
    image = noise(20, 10)
    assert np.array_equal(resized_crop(image, (3, 2, 13, 9), (10, 7)), image[2:9, 3:13])


def test_the_centre_crop_is_the_centre_of_the_resized_image() -> None:
    image = noise(101, 60)
    whole = by_pillow(image, shorter_side(101, 60, 30))  # 50 wide: 15 to each side of 20
    assert differences(centre_crop(image, 30, 20), whole[5:25, 15:35]).max() <= 2


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_crop_needs_the_rows_down_to_the_lowest(seed: int) -> None:
    draw = random.Random(seed)
    width, height, size = draw.randint(9, 60), draw.randint(9, 60), draw.randint(1, 9)
    image = noise(width, height)
    scaled = shorter_side(width, height, draw.randint(size, 70))
    left, top = draw.randint(0, scaled[0] - size), draw.randint(0, scaled[1] - size)
    box = crop_box(width, height, scaled, left, top, size)
    rows = lowest_row(box, (size, size), height)
    crop = resized_crop(image, box, (size, size))
    assert np.array_equal(resized_crop(image[:rows], box, (size, size)), crop)
    assert rows <= height
