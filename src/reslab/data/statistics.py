"""What training on photographs needs to know of its set: the mean picture, and how colours vary."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reslab.data.loading import in_order
from reslab.data.pictures import PictureSet
from reslab.data.replaced import Replaced, SameClass
from reslab.data.resize import centre_crop

LEVELS = 255


class Components(NamedTuple):
    """The principal components of a set's colours, the largest first.

    AlexNet moves a picture by factor times eigenvalue along each eigenvector. An eigenvalue is a
    variance, so what that moves depends on the unit; pixels from 0 to 1 are meant, and `values`
    are those eigenvalues times 255, to be added to pixels from 0 to 255.
    """

    values: Tensor  # [3]
    vectors: Tensor  # [3, 3], a component a column; red, green, blue


# of ImageNet; published with fb.resnet.torch for pixels from 0 to 1
ALEXNET = Components(
    torch.tensor([LEVELS * np.float32(value) for value in (0.2175, 0.0188, 0.0045)]),
    torch.tensor(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    ),
)


def colour_shift(factors: Tensor, components: Components) -> Tensor:
    """What is added to all pixels of a picture, [B, 3] -> [B, 3] of 0 to 255.

    `factors` are normal numbers of AlexNet's standard deviation, three a picture.
    """
    return (factors * components.values) @ components.vectors.T


@dataclass(frozen=True)
class Statistics:
    """Of centre crops of training pictures, as a test would show them."""

    pixel_mean: Tensor  # float [3, size, size], 0 to 255
    components: Components
    pictures: int  # how many they are of


def picture_statistics(
    pictures: PictureSet,
    size: int,
    resize: int,
    *,
    count: int = 10_000,
    seed: int,
    threads: int,
    tell: Callable[[int], None] = lambda done: None,
) -> Statistics:
    """Of a seeded sample of `count` pictures, or of all if there are not more.

    Sums are of whole numbers, so neither order nor threads change them. Bad files are replaced as
    in training.
    """
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    sample = order[:count].sort().values.tolist()
    picture_at = Replaced(pictures.picture, SameClass(pictures.labels, pictures.classes))

    def crop(index: int) -> np.ndarray:
        return centre_crop(picture_at(index)[0], resize, size)

    total = np.zeros((size, size, 3), np.int64)
    products = np.zeros((3, 3))
    with closing(in_order(crop, sample, threads, 4 * threads)) as crops:
        for done, picture in enumerate(crops, 1):
            total += picture
            # exact: whole numbers far below 2^53
            pixels = picture.reshape(-1, 3).astype(np.float64)
            products += pixels.T @ pixels
            tell(done)
    pixel_mean = torch.from_numpy(total / len(sample)).permute(2, 0, 1).float()
    of_all = len(sample) * size * size
    mean = total.sum((0, 1)) / of_all
    covariance = products / of_all - np.outer(mean, mean)
    return Statistics(pixel_mean.contiguous(), principal(covariance), len(sample))


def principal(covariance: np.ndarray) -> Components:
    """Of the covariance of pixels from 0 to 255, [3, 3]; each vector's sum is not negative."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    vectors = vectors * np.where(vectors.sum(0) < 0, -1, 1)
    return Components(
        torch.from_numpy(values / LEVELS).float(), torch.from_numpy(vectors.copy()).float()
    )
