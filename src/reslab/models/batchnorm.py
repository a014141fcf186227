"""Batch-norm statistics: computed anew after training, as the authors released them, or kept."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from reslab.models.layers import ConvBN
from reslab.models.model_file import Model
from reslab.models.resnet import channels_last


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


class NormStatistics:
    """The statistics of batch-norm layers, as one row of numbers: of a forward pass that was made
    in `of_passes`, or what the layers keep."""

    def __init__(self, norms: Iterable[nn.BatchNorm2d], device: torch.device) -> None:
        self.norms, self.device = list(norms), device
        pairs = [(norm.running_mean, norm.running_var) for norm in self.norms]
        self.buffers = [buffer for pair in pairs for buffer in pair if buffer is not None]
        self.counts = [
            n.num_batches_tracked for n in self.norms if n.num_batches_tracked is not None
        ]
        self.sizes = [buffer.numel() for buffer in self.buffers]

    @contextmanager
    def of_passes(self) -> Iterator[float]:
        """Inside, every forward pass in training leaves its own statistics in the layers; given is
        the momentum by which it would have changed what they kept."""
        momenta = [norm.momentum for norm in self.norms]
        assert len(set(momenta)) <= 1, "one network, one momentum"
        for norm in self.norms:
            norm.momentum = 1.0
        try:
            yield (momenta[0] or 0.0) if momenta else 0.0
        finally:
            for norm, momentum in zip(self.norms, momenta, strict=True):
                norm.momentum = momentum

    def row(self) -> Tensor:
        """float64 [numbers]"""
        if not self.buffers:
            return torch.empty(0, dtype=torch.float64, device=self.device)
        return torch.cat(self.buffers).double()

    @torch.no_grad()
    def keep(self, row: Tensor, passes: int) -> None:
        """Put numbers into the layers, which were shown so many passes more than they saw."""
        if self.buffers:
            torch._foreach_copy_(self.buffers, list(row.split(self.sizes)))
            torch._foreach_add_(self.counts, passes)


def only(rows: Tensor) -> Tensor:
    """The rows of one process are all rows."""
    return rows


@torch.no_grad()
def recompute_statistics(
    net: nn.Module,
    passes: Iterable[object],
    gather: Callable[[Tensor], Tensor] = only,
    shares: int = 1,
) -> None:
    """Replace the moving averages by the mean of the statistics of some forward passes, which
    happen as `passes` is gone through, one at a time: `(net(images) for images in batches)`.

    The authors' release holds averages over a large sample and "not moving average". The weights
    stay as they are; the network is left in evaluation mode. Where several processes make passes,
    `shares` each of a mini-batch, `gather` brings the rows of all, in the order of the shares.
    """
    statistics = NormStatistics(norms_of(net), next(net.parameters()).device)
    for norm in statistics.norms:
        norm.reset_running_stats()
    net.train()
    total = torch.zeros_like(statistics.row())
    own, everywhere = 0, 0
    rows: list[Tensor] = []
    with statistics.of_passes():
        for _ in passes:
            own += 1
            rows.append(statistics.row())
            if len(rows) == shares:
                for row in gather(torch.stack(rows)):
                    total += row
                    everywhere += 1
                rows.clear()
    assert not rows
    net.eval()
    if everywhere:
        statistics.keep(total / everywhere, everywhere - own)


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


Net = TypeVar("Net", bound=nn.Module)


def in_bf16(model: Model) -> Model:
    """The same model computing in bf16; its scores differ in their third digit.

    Batch norm is folded while the numbers are exact, and the sum is rounded once.
    """
    net = folded(model.net).to(torch.bfloat16)
    return replace(model, net=channels_last(net))


def folded(net: Net) -> Net:
    """A copy whose convolutions do what their batch norms did; for use, not for training."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        if isinstance(module, ConvBN) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # pyrefly: ignore[bad-assignment]
    return net.requires_grad_(False)
