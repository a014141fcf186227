"""Statistics of a data set: the mean image and the principal components of its colours."""

from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reslab.data.datasets import EncodedImages, replace_within_class
from reslab.data.resize import centre_crop
from reslab.runtime.events import Log
from reslab.runtime.threads import map_in_order

LEVELS = 255


class Components(NamedTuple):
    """The principal components of a set's colours, largest first.

    AlexNet shifts an image's colour by factor times eigenvalue along each eigenvector. An
    eigenvalue is a variance, so the shift depends on the scale of the pixels, which is 0 to 1 in
    AlexNet. `values` are the eigenvalues on that scale times 255, for pixels from 0 to 255.
    """

    values: Tensor  # [3]
    vectors: Tensor  # [3, 3], one component per column; RGB


# for ImageNet; published in fb.resnet.torch for pixels from 0 to 1
ALEXNET = Components(
    torch.tensor([LEVELS * np.float32(value) for value in (0.2175, 0.0188, 0.0045)]),
    torch.tensor(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    ),
)


def colour_shift(factors: Tensor, components: Components) -> Tensor:
    """Return each image's colour shift, [B, 3] -> [B, 3], for pixels from 0 to 255.

    `factors` are normal random numbers, three per image; AlexNet's standard deviation is 0.1.
    """
    return (factors * components.values) @ components.vectors.T


def measure_statistics(
    images: EncodedImages,
    size: int,
    resize: int,
    *,
    count: int = 10_000,
    seed: int,
    threads: int,
    on_bad: Log = lambda text: None,
) -> tuple[Tensor, Components]:
    """Compute the mean image, float [3, size, size] from 0 to 255, and the colour components.

    This uses the centre crops of at most `count` images, sampled with `seed`. Sums are exact, so
    the result depends on neither the order nor the number of threads. Bad files are replaced as in
    training; `on_bad` is called with the reason of each.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    sample = order[:count].sort().values.tolist()
    image_at = replace_within_class(images)

    def crop(index: int) -> np.ndarray:
        return centre_crop(image_at(index)[0], resize, size)

    total = np.zeros((size, size, 3), np.int64)
    products = np.zeros((3, 3))
    with closing(map_in_order(crop, sample, threads, 4 * threads)) as crops:
        for image in crops:
            total += image
            # exact: integers far below 2^53
            pixels = image.reshape(-1, 3).astype(np.float64)
            products += pixels.T @ pixels
    for index in sorted(image_at.reasons):
        on_bad(image_at.reasons[index])
    pixel_mean = torch.from_numpy(total / len(sample)).permute(2, 0, 1).float()
    pixel_count = len(sample) * size * size
    mean = total.sum((0, 1)) / pixel_count
    covariance = products / pixel_count - np.outer(mean, mean)
    return pixel_mean.contiguous(), principal_components(covariance)


def principal_components(covariance: np.ndarray) -> Components:
    """Return the principal components for the covariance [3, 3] of pixels from 0 to 255.

    Each vector's sign is chosen so that the sum of its entries is not negative.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    vectors = vectors * np.where(vectors.sum(0) < 0, -1, 1)
    return Components(
        torch.from_numpy(values / LEVELS).float(), torch.from_numpy(vectors.copy()).float()
    )
