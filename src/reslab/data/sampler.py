"""Sample images in an endless sequence for training, with seeded random generators."""

from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor


class Stream(IntEnum):
    """The uses of random numbers; for one seed, each use has its own random stream."""

    ORDER = 0  # the order of the images
    AUGMENTATION = 1
    INITIALISATION = 2  # the initial weights
    CLASSES = 3  # the order of classes in class-balanced sampling
    SAMPLING = 4  # the sampling of anchors and regions
    NETWORK = 5  # the random layers of a network
    GLOBAL = 6  # torch's global generators, in runs with parts of the user's own


def make_generator(*key: int) -> Generator:
    """Return a generator seeded by integers: a seed, a Stream, and counters in the stream."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


class ShuffleSampler:
    """Sample the images in a new permutation each epoch, in one continuous sequence."""

    def __init__(self, count: int, *key: int) -> None:
        self.count, self.key = count, key
        # every batch of an epoch needs the epoch's permutation
        self._permutation = lru_cache(maxsize=2)(self._draw_permutation)

    def _draw_permutation(self, epoch: int) -> Tensor:
        return torch.randperm(self.count, generator=make_generator(*self.key, epoch))

    def __call__(self, start: int, length: int) -> Tensor:
        """Return the image indices at positions `start` to `start + length - 1`; int64 [length]."""
        parts = []
        while length:
            epoch, first = divmod(start, self.count)
            part = self._permutation(epoch)[first : first + length]
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return torch.cat(parts)


class ClassBalancedSampler:
    """Sample each class equally often, whatever its size: all classes in a new order each round.

    Each class has its own epochs, in which every image of the class is used once.
    """

    def __init__(self, labels: Tensor, seed: int) -> None:
        counts = labels.bincount()
        by_class = labels.argsort(stable=True).split(counts.tolist())
        self.members = [members for members in by_class if len(members)]
        self.classes = ShuffleSampler(len(self.members), seed, Stream.CLASSES)
        self.within = [
            ShuffleSampler(len(members), seed, Stream.ORDER, number)
            for number, members in enumerate(self.members)
        ]

    def __call__(self, start: int, length: int) -> Tensor:
        """Return the image indices at positions `start` to `start + length - 1`; int64 [length]."""
        indices = torch.empty(length, dtype=torch.int64)
        for position, number in enumerate(self.classes(start, length).tolist()):
            round_ = (start + position) // len(self.members)
            indices[position] = self.members[number][self.within[number](round_, 1)[0]]
        return indices


def make_sampler(
    labels: Tensor, seed: int, *, balanced: bool
) -> ShuffleSampler | ClassBalancedSampler:
    """Return a sampler for a labelled set, class-balanced if `balanced`."""
    if balanced:
        return ClassBalancedSampler(labels, seed)
    return ShuffleSampler(len(labels), seed, Stream.ORDER)
