"""A tensor in another program's file, whose numbers are read when they are needed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

BATCH_COUNT = "num_batches_tracked"
# last parts of names that only weights have
WEIGHTS = {"weight", "bias", "running_mean", "running_var", BATCH_COUNT}


class NotWeights(Exception):
    """A file is not one of weights; the message continues a sentence that begins with its name."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    kind: str = "dense"  # or sparse, quantised, ..., whose numbers are not read

    def is_weight(self, name: str) -> bool:
        """Return whether the tensor can be a network's weight, not a counter beside weights."""
        return self.dtype.is_floating_point or name.rpartition(".")[2] in WEIGHTS


def from_array(array: np.ndarray) -> Any:
    """Return an array of numbers as a tensor, text as a list, and None for anything else."""
    if array.dtype.kind in "SU":
        return array.tolist()
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        return None
    tensor = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), "W"))
    return Stored(tensor.dtype, tuple(tensor.shape), lambda: tensor)
