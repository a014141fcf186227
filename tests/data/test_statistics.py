import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.datasets import EncodedImages
from reslab.data.statistics import (
    ALEXNET,
    Components,
    colour_shift,
    measure_statistics,
    principal_components,
)


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
