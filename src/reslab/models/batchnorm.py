"""Batch-norm statistics: computed anew after training, as the authors released them, or kept."""

from collections.abc import Iterable

import torch
from torch import nn

from reslab.models.layers import ConvBN


def norms_of(net: nn.Module) -> list[nn.BatchNorm2d]:
    """All batch-norm layers of a network."""
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def train_mode(net: nn.Module, *, keep_statistics: bool) -> None:
    """Training mode; with kept statistics batch norm is a constant affine map (App. A)."""
    net.train()
    if not keep_statistics:
        return
    for norm in norms_of(net):
        norm.eval()
        norm.requires_grad_(False)


@torch.no_grad()
def recompute_statistics(net: nn.Module, passes: Iterable[object]) -> None:
    """Replace the moving averages by the mean of the statistics of some forward passes, which
    happen as `passes` is gone through: `(net(images) for images in batches)`.

    The authors' release holds averages over a large sample and "not moving average". The weights
    stay as they are; the network is left in evaluation mode.
    """
    norms = norms_of(net)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's cumulative average
    net.train()
    for _ in passes:
        pass
    net.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def at_initial_scale(net: nn.Module) -> None:
    """Give each convolution the deviation that it would be drawn with (He); its batch norm, with
    statistics that go along, makes the same of it.

    Under batch norm the scale of a convolution means nothing, and decay shrinks it. Once statistics
    are kept, it decides how far a step goes: weights from anywhere then learn at the paper's rates.
    """
    for module in net.modules():
        if isinstance(module, ConvBN) and isinstance(module.norm, nn.BatchNorm2d):
            weight, norm = module.conv.weight, module.norm
            drawn = (2 / weight[0].numel()) ** 0.5
            scale = drawn / weight.std() if weight.any() else 1.0
            weight.mul_(scale)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.mul_(scale)
            norm.running_var.copy_((norm.running_var + norm.eps) * scale**2 - norm.eps)
