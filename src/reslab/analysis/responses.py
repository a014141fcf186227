"""Standard deviations of the layer responses (Sec. 4.2, Fig. 7)."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from reslab.data.datasets import ImagesInMemory
from reslab.models.layers import ConvBN
from reslab.models.model_file import Model

BATCH_IMAGES = 250  # images per forward pass


@torch.no_grad()
def layer_responses(model: Model, images: ImagesInMemory) -> dict[str, float]:
    """Measure the standard deviation of each 3x3 layer's output over a set, by layer name.

    Layers are in the order of the network. The output is measured before ReLU or addition, as in
    Fig. 7, over all images, channels and positions: after the norm in a `ConvBN`, directly after
    any other 3x3 convolution. Layers that the network does not use are left out.
    """
    layers = dict(layers_3x3(model.net))
    sums = {name: torch.zeros(3, dtype=torch.float64) for name in layers}

    def add(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        values = output.double()
        count = torch.tensor(float(values.numel()), dtype=torch.float64)
        sums[name] += torch.stack((count, values.sum().cpu(), values.square().sum().cpu()))

    hooks = [layer.register_forward_hook(partial(add, name)) for name, layer in layers.items()]
    for start in range(0, len(images), BATCH_IMAGES):
        model(images.images[start : start + BATCH_IMAGES])
    for hook in hooks:
        hook.remove()
    return {name: standard_deviation(*total.tolist()) for name, total in sums.items() if total[0]}


def layers_3x3(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and module of each 3x3 convolution, or of the `ConvBN` that it is part of."""
    inside = {id(module.conv) for module in net.modules() if isinstance(module, ConvBN)}
    for name, module in net.named_modules():
        conv = module.conv if isinstance(module, ConvBN) else module
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and id(module) not in inside:
            yield name, module


def standard_deviation(count: float, total: float, squares: float) -> float:
    """Return the standard deviation, given a count, a sum and a sum of squares."""
    return max(squares / count - (total / count) ** 2, 0.0) ** 0.5
