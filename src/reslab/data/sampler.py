"""Which images the positions of an endless training sequence hold, as a function of the seed."""

from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor

# the streams of random numbers that a seed is split into; 2 draws a network's weights
ORDER, AUGMENTATION, CLASSES, SAMPLING = 0, 1, 3, 4


def make_generator(*key: int) -> Generator:
    """Independent random numbers for each key of whole numbers."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


class ShuffleSampler:
    """Each epoch a new permutation; epochs follow each other without a seam."""

    def __init__(self, count: int, *key: int) -> None:
        self.count, self.key = count, key
        # an epoch's order is asked for by every batch of it
        self._permutation = lru_cache(maxsize=2)(self._draw_permutation)

    def _draw_permutation(self, epoch: int) -> Tensor:
        return torch.randperm(self.count, generator=make_generator(*self.key, epoch))

    def __call__(self, start: int, length: int) -> Tensor:
        """The images at the positions from `start` on, [length]."""
        parts = []
        while length:
            epoch, first = divmod(start, self.count)
            part = self._permutation(epoch)[first : first + length]
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return torch.cat(parts)


class ClassBalancedSampler:
    """Each class equally often, whatever its size: all classes once, in a new order each round.

    The images of a class come as in epochs of their own, so that none is forgotten.
    """

    def __init__(self, labels: Tensor, seed: int) -> None:
        counts = labels.bincount()
        by_class = labels.argsort(stable=True).split(counts.tolist())
        self.members = [members for members in by_class if len(members)]
        self.classes = ShuffleSampler(len(self.members), seed, CLASSES)
        self.within = [
            ShuffleSampler(len(members), seed, ORDER, number)
            for number, members in enumerate(self.members)
        ]

    def __call__(self, start: int, length: int) -> Tensor:
        """The images at the positions from `start` on, [length]."""
        chosen = torch.empty(length, dtype=torch.int64)
        for place, number in enumerate(self.classes(start, length).tolist()):
            turn = (start + place) // len(self.members)
            chosen[place] = self.members[number][self.within[number](turn, 1)[0]]
        return chosen
