"""The mean image of a set of photographs, and the principal components of its colours."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reslab.data.augment import LEVELS, Components
from reslab.data.datasets import EncodedImages
from reslab.data.loader import replace_within_class
from reslab.data.resize import centre_crop
from reslab.runtime.threads import map_in_order


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of centre crops of training images, as a test would show them."""

    pixel_mean: Tensor  # float [3, size, size], 0 to 255
    components: Components
    images: int  # how many were measured


def measure_statistics(
    images: EncodedImages,
    size: int,
    resize: int,
    *,
    count: int = 10_000,
    seed: int,
    threads: int,
    on_event: Callable[[int], None] = lambda done: None,
) -> ImageStatistics:
    """Measure a seeded sample of `count` images, or all if there are not more.

    Sums are of whole numbers, so neither order nor threads change them. Bad files are replaced as
    in training.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    sample = order[:count].sort().values.tolist()
    image_at = replace_within_class(images)

    def crop(index: int) -> np.ndarray:
        return centre_crop(image_at(index)[0], resize, size)

    total = np.zeros((size, size, 3), np.int64)
    products = np.zeros((3, 3))
    with closing(map_in_order(crop, sample, threads, 4 * threads)) as crops:
        for done, image in enumerate(crops, 1):
            total += image
            # exact: whole numbers far below 2^53
            pixels = image.reshape(-1, 3).astype(np.float64)
            products += pixels.T @ pixels
            on_event(done)
    pixel_mean = torch.from_numpy(total / len(sample)).permute(2, 0, 1).float()
    pixel_count = len(sample) * size * size
    mean = total.sum((0, 1)) / pixel_count
    covariance = products / pixel_count - np.outer(mean, mean)
    return ImageStatistics(pixel_mean.contiguous(), principal_components(covariance), len(sample))


def principal_components(covariance: np.ndarray) -> Components:
    """Decompose the covariance of pixels from 0 to 255, [3, 3].

    The sign of a vector is chosen so that its sum is not negative.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    vectors = vectors * np.where(vectors.sum(0) < 0, -1, 1)
    return Components(
        torch.from_numpy(values / LEVELS).float(), torch.from_numpy(vectors.copy()).float()
    )
