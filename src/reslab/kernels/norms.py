"""Batch norm, addition and ReLU as one operation in C++, with its gradient."""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from reslab.kernels.build import Kernels

POINTER = ctypes.c_void_p
CHANNEL_STEP = 16  # the number of a map's channels must be a multiple of it
NUMBERS = 4  # kept per channel for the backward pass


def add_and_normalise(
    kernels: Kernels, norm: nn.BatchNorm2d, z: Tensor, residual: Tensor | None, *, relu: bool
) -> Tensor:
    """Return `norm(z)`, plus the residual if there is one, after ReLU if `relu`, [B, C, H, W].

    Statistics and their moving averages are those of `norm`. A residual needs ReLU. Raise
    ValueError if each channel has a single value when training, as torch does.
    """
    assert relu or residual is None
    if norm.training and z.numel() == z.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got {z.shape}")
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return NormFunction.apply(kernels, norm, z, residual, relu, norm.weight, norm.bias)


class NormFunction(torch.autograd.Function):
    """The operation; gamma and beta are arguments so that autograd sees them.

    They have gradients in training mode only.
    """

    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, norm: nn.BatchNorm2d, z: Tensor, residual: Tensor | None,
        relu: bool, gamma: Tensor, beta: Tensor,
    ) -> Tensor:  # fmt: skip
        assert norm.training or not (gamma.requires_grad or beta.requires_grad)
        z, y, numbers = forward(kernels, norm, z, residual, relu)
        ctx.kernels, ctx.relu, ctx.added = kernels, relu, residual is not None
        # the zeros of ReLU follow from z if it is kept and there is no residual
        with_y = ctx.added or (relu and not norm.training)
        ctx.save_for_backward(numbers, z if norm.training else None, y if with_y else None)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        numbers, z, y = ctx.saved_tensors
        dy = as_map(gradients[0], ctx.kernels.dtype)
        dz, dresidual = torch.empty_like(dy), torch.empty_like(dy) if ctx.added else None
        library = ctx.kernels.library
        if z is None:
            library.norm_backward_fixed(
                *sizes(dy), address(y), address(dy), address(numbers), address(dz),
                address(dresidual),
            )  # fmt: skip
            return None, None, dz, dresidual, None, None, None
        weights = numbers.new_empty(2, numbers.shape[1])
        library.norm_backward(
            *sizes(dy), address(z), address(y), address(dy), ctx.relu, address(numbers),
            address(dz), address(dresidual), address(weights[0]), address(weights[1]),
        )  # fmt: skip
        return None, None, dz, dresidual, None, *weights


def forward(
    kernels: Kernels, norm: nn.BatchNorm2d, z: Tensor, residual: Tensor | None, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return z in the kernels' type and layout, the output, and the numbers for `backward`."""
    assert norm.num_features % CHANNEL_STEP == 0
    z = as_map(z, kernels.dtype)
    added = None if residual is None else as_map(residual, kernels.dtype)
    y, numbers = torch.empty_like(z), torch.empty(NUMBERS, norm.num_features)
    moved = norm.track_running_stats or not norm.training
    kernels.library.norm_forward(
        *sizes(z), address(z), address(added), relu, norm.training, address(norm.weight),
        address(norm.bias), address(norm.running_mean if moved else None),
        address(norm.running_var if moved else None), ctypes.c_double(norm.momentum or 0.0),
        ctypes.c_double(norm.eps), address(numbers), address(y),
    )  # fmt: skip
    return z, y, numbers


def as_map(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x in the given type, channels last."""
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def sizes(x: Tensor) -> tuple[ctypes.c_size_t, int, int]:
    """Return a map's numbers of rows (pixels of all images) and channels, and of threads."""
    channels = x.shape[1]
    return ctypes.c_size_t(x.numel() // channels), channels, torch.get_num_threads()


def address(x: Tensor | None) -> POINTER:
    return POINTER(None if x is None else x.data_ptr())
