"""Train with less memory: compute activations again in the backward pass (arXiv 1604.06174).

For its backward pass a network keeps four feature maps per block: 1,202 layers need 8 GiB for
a mini-batch of 128. Here only the inputs of groups of blocks are kept, and each group has a second
forward pass when its gradients are due. Weights and statistics get the same bits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from reslab.models.random_layers import numbers_for, random_layers

MAPS_PER_BLOCK = 4  # kept by a basic block: the outputs of both convolutions and both ReLUs


def recomputed_in_groups(blocks: nn.Sequential, x: Tensor) -> Tensor:
    """Return `blocks(x)`, storing only the input of each group of blocks.

    The groups are sized to need the least memory: about as much for their inputs as for the
    activations of one group. `x` must require a gradient, or else the blocks would get none.
    """
    size = max(round((len(blocks) / MAPS_PER_BLOCK) ** 0.5), 1)
    for first in range(0, len(blocks), size):
        x = cast(Tensor, _Recomputed.apply(blocks[first : first + size], x))
    return x


class _Recomputed(torch.autograd.Function):
    """Apply a module without recording its graph; backward applies it again to record it."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, x: Tensor) -> Tensor:
        ctx.module = module
        ctx.numbers = [layer.numbers for layer in random_layers(module)]
        device = x.device.type
        ctx.autocast = torch.autocast(
            device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        )
        ctx.save_for_backward(x)
        return module(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None]:
        (saved,) = ctx.saved_tensors
        x = saved.detach().requires_grad_()
        with (
            torch.enable_grad(),
            ctx.autocast,
            numbers_for(ctx.module, ctx.numbers),
            without_averaging(ctx.module),
        ):
            y = ctx.module(x)
        torch.autograd.backward(y, gradients)
        return None, x.grad


@contextmanager
def without_averaging(module: nn.Module) -> Iterator[None]:
    """Return a context in which batch norm leaves its moving averages and their count unchanged.

    The first forward pass has updated them.
    """
    norms = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
