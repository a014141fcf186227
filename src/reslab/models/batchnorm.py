"""Batch norm: recompute its statistics, keep them fixed, or fold it into the convolutions."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from reslab.models.layers import ConvBN, Net, channels_last
from reslab.models.model_file import Model
from reslab.models.random_layers import switch_off


def norms_of(net: nn.Module) -> list[nn.BatchNorm2d]:
    """Return all batch-norm layers of a network."""
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def trained_norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the batch-norm layers in training mode, whose statistics are updated."""
    return [norm for norm in norms_of(net) if norm.training]


def convs_with_norm(net: nn.Module) -> list[tuple[ConvBN, nn.BatchNorm2d]]:
    """Return each convolution that is followed by batch norm, with its norm."""
    return [
        (module, module.norm)
        for module in net.modules()
        if isinstance(module, ConvBN) and isinstance(module.norm, nn.BatchNorm2d)
    ]


def train_mode(net: nn.Module, *, keep_statistics: bool) -> None:
    """Set training mode; with `keep_statistics`, batch norm is a fixed affine map (App. A)."""
    net.train()
    if not keep_statistics:
        return
    for norm in norms_of(net):
        norm.eval()
        norm.requires_grad_(False)


class NormStatistics:
    """The statistics of all batch-norm layers, read and written as one row of numbers.

    They are moving averages, except inside `without_averaging`.
    """

    def __init__(self, norms: Iterable[nn.BatchNorm2d], device: torch.device) -> None:
        self.norms, self.device = list(norms), device
        pairs = [(norm.running_mean, norm.running_var) for norm in self.norms]
        self.buffers = [buffer for pair in pairs for buffer in pair if buffer is not None]
        counts = [norm.num_batches_tracked for norm in self.norms]
        self.counts = [count for count in counts if count is not None]
        self.sizes = [buffer.numel() for buffer in self.buffers]

    @contextmanager
    def without_averaging(self) -> Iterator[float]:
        """Return a context in which each forward pass in training mode stores its own statistics.

        The value of the context is the momentum of the moving averages.
        """
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
        """Return the statistics, float64 [numbers]."""
        if not self.buffers:
            return torch.empty(0, dtype=torch.float64, device=self.device)
        return torch.cat(self.buffers).double()

    @torch.no_grad()
    def write(self, row: Tensor, foreign_passes: int) -> None:
        """Replace the statistics, and count `foreign_passes`, which these layers did not make."""
        if self.buffers:
            row = row.to(self.buffers[0].dtype)  # at once: torch would convert them one by one
            torch._foreach_copy_(self.buffers, list(row.split(self.sizes)))
            self.count(foreign_passes)

    @torch.no_grad()
    def count(self, passes: int) -> None:
        """Count forward passes that these layers did not make themselves."""
        if self.counts:
            torch._foreach_add_(self.counts, passes)


@torch.no_grad()
def recompute_statistics(
    net: nn.Module,
    passes: Iterable[object],
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
    shares: int = 1,
) -> None:
    """Replace the moving averages by the mean statistics of several forward passes.

    Each step of the iterator `passes` runs one: `(net(images) for images in batches)`. Random
    layers are off, the weights do not change, and the network is left in evaluation mode. When
    several processes run passes, each for `shares` parts of a mini-batch, `gather` returns the rows
    of all processes in the order of the parts.

    The authors' released models store averages over a large sample, "not moving average".
    """
    statistics = NormStatistics(norms_of(net), next(net.parameters()).device)
    for norm in statistics.norms:
        norm.reset_running_stats()
    net.train()
    switch_off(net)
    total = torch.zeros_like(statistics.row())
    local_passes, all_passes = 0, 0
    rows: list[Tensor] = []
    with statistics.without_averaging():
        for _ in passes:
            local_passes += 1
            rows.append(statistics.row())
            if len(rows) == shares:
                for row in gather(torch.stack(rows)):
                    total += row
                    all_passes += 1
                rows.clear()
    assert not rows
    net.eval()
    if all_passes:
        statistics.write(total / all_passes, all_passes - local_passes)


@torch.no_grad()
def restore_initial_scale(net: nn.Module) -> None:
    """Rescale each convolution to the standard deviation of its He initialisation.

    The batch-norm statistics are rescaled with it, so the network computes the same function. Under
    batch norm the scale of a convolution has no effect on the output, and weight decay shrinks it.
    With fixed statistics the scale determines the relative size of an update; after rescaling,
    weights from any source train at the paper's learning rates.
    """
    for layer, norm in convs_with_norm(net):
        weight = layer.conv.weight
        initial_std = (2 / weight[0].numel()) ** 0.5
        scale = initial_std / weight.std() if weight.any() else 1.0
        weight.mul_(scale)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.mul_(scale)
        norm.running_var.copy_((norm.running_var + norm.eps) * scale**2 - norm.eps)


@torch.no_grad()
def fold_batchnorm(net: Net) -> Net:
    """Return a copy for inference, with batch norm folded into the convolutions."""
    weights = [layer.conv.weight for layer, _ in convs_with_norm(net)]
    net = copy.deepcopy(net, {id(weight): weight for weight in weights}).eval()
    for layer, norm in convs_with_norm(net):
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        layer.conv.weight, layer.conv.bias = fuse_conv_bn_weights(  # replaces the shared weight
            layer.conv.weight, layer.conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
        )
        layer.norm = nn.Identity()  # pyrefly: ignore[bad-assignment]
    return net.requires_grad_(False)


def fold_in_fp32(net: Net) -> Net:
    """Return a copy for inference in fp32, with batch norm folded, whatever type the weights have.

    They are converted first, because folding rounds to their type.
    """
    return fold_batchnorm(copy.deepcopy(net).to(torch.float32))


def in_bf16(model: Model) -> Model:
    """Return a bf16 version of a model; its scores differ in the third digit.

    Batch norm is folded in full precision first, so each weight is rounded once.
    """
    net = fold_batchnorm(model.net).to(torch.bfloat16)
    return replace(model, net=channels_last(net))


def is_folded(net: nn.Module) -> bool:
    """Return whether batch norm was folded into the convolutions: mean 0 and variance 1 everywhere.

    An untrained net also has these values, but its biases are 0; folding makes them nonzero.
    """
    norms = norms_of(net)
    means = [norm.running_mean for norm in norms if norm.running_mean is not None]
    variances = [norm.running_var for norm in norms if norm.running_var is not None]
    unused = not any(mean.any() for mean in means) and all((var == 1).all() for var in variances)
    return unused and any(norm.bias.any() for norm in norms)
