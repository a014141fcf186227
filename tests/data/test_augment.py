import io
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reslab.data.augment import (
    ALEXNET,
    Components,
    ResizedCrop,
    ScaleCrop,
    colour_shift,
    draw_flips,
    draw_offsets,
    flip,
    measure_statistics,
    pad_and_crop,
    principal_components,
)
from reslab.data.datasets import EncodedImages
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


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_all_81_offsets_occur_about_equally_and_each_is_a_correct_crop() -> None:
    """All pixels of the image are different, which shows where each crop comes from."""
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
    # 60 expected for each; some binomial count leaves 25..110 once in 10^5 such tests
    assert all(25 < times < 110 for times in seen.values())


def test_channels_are_cropped_together() -> None:
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


def test_random_numbers_come_only_from_the_generator() -> None:
    torch.manual_seed(1)
    offsets, flips = draw_offsets(8, 4, rng(7)), draw_flips(8, rng(8))
    torch.manual_seed(2)
    assert torch.equal(offsets, draw_offsets(8, 4, rng(7)))
    assert torch.equal(flips, draw_flips(8, rng(8)))


def a_set(images: list[np.ndarray]) -> EncodedImages:
    """Return a set of PNGs, which are lossless; an empty array becomes a bad file."""

    def png(image: np.ndarray) -> bytes:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "png")
        return out.getvalue()

    files = {f"{k}.png": png(x) if x.size else b"no" for k, x in enumerate(images)}
    labels = torch.zeros(len(files), dtype=torch.int64)
    return EncodedImages("train", list(files), labels, ("a",), ("a",), files.__getitem__)


def noise(count: int, height: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def test_the_mean_image_is_exact() -> None:
    """At their original size, images are not resized: the mean is over their centre crops."""
    images = noise(7, 8, 10)
    mean, _ = measure_statistics(a_set(images), 6, 8, seed=0, threads=2)
    expected = np.stack(images)[:, 1:7, 2:8].astype(np.float64).mean(0)
    assert mean.dtype == torch.float32
    assert torch.equal(mean, torch.from_numpy(expected).permute(2, 0, 1).float())


def test_the_components_match_the_covariance_of_the_pixels() -> None:
    images = [image // np.array([1, 2, 4], np.uint8) for image in noise(5, 8, 8)]
    _, statistics = measure_statistics(a_set(images), 8, 8, seed=0, threads=1)
    covariance = np.cov(np.stack(images).reshape(-1, 3).T, bias=True)
    rebuilt = statistics.vectors @ torch.diag(statistics.values) @ statistics.vectors.T * 255
    assert torch.allclose(rebuilt, torch.from_numpy(covariance).float(), rtol=1e-4, atol=0.05)
    assert statistics.values[0] > statistics.values[1] > statistics.values[2] > 0


def test_a_known_covariance_has_known_components() -> None:
    """All variance is along (1, 2, 2) / 3."""
    direction = np.array([-1, -2, -2]) / 3
    statistics = principal_components(2550 * np.outer(direction, direction))
    assert statistics.values.tolist() == pytest.approx([10, 0, 0], abs=1e-5)
    assert statistics.vectors[:, 0].tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_threads_do_not_change_statistics_and_the_sample_is_seeded() -> None:
    images = a_set(noise(30, 12, 9))
    seen: list[str] = []

    def read(file: str) -> bytes:
        seen.append(file)
        return images.read(file)

    counted = replace(images, read=read)
    mean, components = measure_statistics(counted, 6, 8, count=10, seed=3, threads=1)
    for threads in (2, 5):
        other_mean, other = measure_statistics(images, 6, 8, count=10, seed=3, threads=threads)
        assert torch.equal(mean, other_mean)
        assert torch.equal(components.values, other.values)
        assert torch.equal(components.vectors, other.vectors)
    assert len(set(seen)) == len(seen) == 10
    elsewhere, _ = measure_statistics(images, 6, 8, count=10, seed=4, threads=1)
    assert not torch.equal(mean, elsewhere)


def test_bad_files_are_skipped_and_reported() -> None:
    good = noise(3, 6, 6)
    with_bad = a_set([good[0], np.empty(0), good[1]])
    # the bad file is replaced by the next image of its class
    expected = np.stack([good[0], good[1], good[1]]).mean(0)
    reasons: list[str] = []
    mean, _ = measure_statistics(with_bad, 6, 6, seed=0, threads=2, on_bad=reasons.append)
    assert len(reasons) == 1
    assert torch.allclose(mean, torch.from_numpy(expected).permute(2, 0, 1).float())


def test_colour_shifts_for_imagenet_have_the_right_scale() -> None:
    """On the wrong scale, shifts would be negligible or extreme: 1/255 of this, or 255 times."""
    rng = torch.Generator().manual_seed(0)
    added = colour_shift(0.1 * torch.randn(200_000, 3, generator=rng), ALEXNET)
    # per channel: 0.1 * 255 * sqrt(sum of (vector * value)^2), for pixels from 0 to 255
    assert added.std(0).tolist() == pytest.approx([3.166, 3.222, 3.247], rel=0.01)
    assert added.mean(0).tolist() == pytest.approx([0, 0, 0], abs=0.03)


def test_a_colour_shift_computed_by_hand() -> None:
    components = Components(torch.tensor([10.0, 5.0, 1.0]), torch.eye(3).roll(1, 0))
    # the first component is green, the second blue, the third red
    shift = colour_shift(torch.tensor([[1.0, 2.0, 3.0]]), components)
    assert shift.tolist() == [[3.0, 10.0, 10.0]]


def test_alexnets_vectors_are_orthonormal() -> None:
    product = ALEXNET.vectors.T @ ALEXNET.vectors
    assert torch.allclose(product, torch.eye(3), atol=1e-3)
