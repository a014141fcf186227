"""Crops in C++ are those of torch, bit by bit."""

import pytest
import torch
from torch import Tensor

from reslab.data.datasets import ImagesInMemory
from reslab.data.loader import InMemoryLoader
from reslab.kernels.build import Kernels
from reslab.models.preprocessing import Preprocessing
from reslab.training.native import with_cropper


def loader_of(images: Tensor, preprocessing: Preprocessing, pad: int, flip: bool) -> InMemoryLoader:
    labels = torch.arange(len(images)) % 2
    train = ImagesInMemory("random", images, labels, ("a", "b"))
    return InMemoryLoader(train, preprocessing, size=40, pad=pad, flip=flip, seed=0)


MEAN = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(1)) * 255
STD = torch.tensor([60.0, 61.0, 62.5])[:, None, None]


@pytest.mark.parametrize(("pad", "flip"), [(4, True), (14, False), (0, True), (0, False)])
@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(MEAN, torch.ones(3, 1, 1)),
        Preprocessing(MEAN[:, :1, :1], STD, "BGR"),
        Preprocessing(MEAN[:, :5, :5], STD),  # of another size: its average is subtracted
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_crops_are_those_of_torch(
    kernels: Kernels, pad: int, flip: bool, preprocessing: Preprocessing, channels_last: bool
) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (50, 3, 12, 12), dtype=torch.uint8, generator=rng)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    loader = loader_of(images, preprocessing, pad, flip)
    cropper = with_cropper(loader, kernels)
    assert isinstance(cropper, InMemoryLoader)
    assert cropper.crop != loader.crop
    for iteration in range(3):
        expected, result = loader(iteration), cropper(iteration)
        assert torch.equal(result.images, expected.images)
        assert result.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(result.labels, expected.labels)


def test_preprocessing_of_your_own_stays_with_torch(kernels: Kernels) -> None:
    images = torch.zeros(4, 3, 12, 12, dtype=torch.uint8)
    train = ImagesInMemory("black", images, torch.arange(4) % 2, ("a", "b"))
    loader = InMemoryLoader(train, Tensor.float, size=2, pad=4, flip=True, seed=0)
    assert with_cropper(loader, kernels) is loader
