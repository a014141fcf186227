"""A step of SGD for many small tensors at once in C++, with the bits of torch's fused kernel."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from reslab.kernels.build import Kernels

POINTER = ctypes.c_void_p
MULTIPLE = 16  # the number of elements of a tensor must be a multiple of it


class SgdTensor(ctypes.Structure):
    """The structure of this name in sgd.h."""

    _fields_ = (
        ("weight", POINTER),
        ("gradient", POINTER),
        ("velocity", POINTER),
        ("count", ctypes.c_int64),
        ("decay", ctypes.c_float),
        ("rate", ctypes.c_float),
    )


class SgdTensors:
    """Weights and their velocities, whose memory stays where it is."""

    def __init__(
        self,
        kernels: Kernels,
        weights: Sequence[Tensor],
        velocities: Sequence[Tensor],
        decays: Sequence[float],
        momentum: float,
    ) -> None:
        """`weights` and `velocities` have the same memory layout; there is one decay per weight."""
        self.library, self.momentum = kernels.library, momentum
        self.tensors = [*weights, *velocities]  # kept, because the kernel has only addresses
        self.entries = (SgdTensor * len(weights))()
        rows = zip(self.entries, weights, velocities, decays, strict=True)
        for entry, weight, velocity, decay in rows:
            assert weight.numel() % MULTIPLE == 0
            assert weight.stride() == velocity.stride()
            assert weight.dtype == velocity.dtype == torch.float32
            entry.weight, entry.velocity = weight.data_ptr(), velocity.data_ptr()
            entry.count, entry.decay = weight.numel(), decay

    def step(self, gradients: Sequence[Tensor], rates: Sequence[float]) -> None:
        """Update weights and velocities from gradients in the layout of the weights."""
        for entry, gradient, rate in zip(self.entries, gradients, rates, strict=True):
            entry.gradient, entry.rate = gradient.data_ptr(), rate
        self.library.sgd_step_all(
            self.entries, len(self.entries), ctypes.c_float(self.momentum),
            torch.get_num_threads(),
        )  # fmt: skip
