"""Prepare networks for inference: fold batch norm and, on a CPU, fuse what follows convolutions."""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from reslab.kernels.inference import FusedConv, can_fuse
from reslab.models.batchnorm import fold_batchnorm
from reslab.models.layers import ConvBN, Net, Projection, channels_last
from reslab.models.model_file import Model
from reslab.models.random_layers import RandomLayer
from reslab.models.resnet import Block, ResNet


def model_for_inference(model: Model) -> Model:
    """Return a faster version of a model, whose logits are the same up to rounding.

    Its network cannot be trained. A model with a network of the user's own is returned unchanged.
    """
    return replace(model, net=net_for_inference(model.net)) if is_of_blocks(model) else model


def is_of_blocks(model: Model) -> bool:
    """Return whether a model's network is a ResNet of the paper's blocks, not the user's own."""
    return model.own_net is None and type(model.net) is ResNet


def net_for_inference(net: Net) -> Net:
    """Return a faster copy of a ResNet, or of a detector's network, for inference.

    Batch norm is folded into the convolutions; on a CPU, so are residual additions and ReLU.
    """
    net = channels_last(fold_batchnorm(net))
    weight = next(net.parameters())
    if can_fuse(weight.dtype, weight.device):
        fuse_children(net)
    return net


class InferenceCache:
    """Keep a network's version for inference, and rebuild it when the network's weights change.

    Changes are noticed by torch's counter for each tensor, which those through `.data` bypass.
    """

    def __init__(self) -> None:
        self.versions: object = None
        self.net: nn.Module | None = None

    def for_inference(self, net: Net) -> Net:
        tensors = net.state_dict(keep_vars=True).values()
        # inference tensors have no versions
        versions = [(t.data_ptr(), None if t.is_inference() else t._version) for t in tensors]
        if self.net is None or versions != self.versions:
            self.net, self.versions = net_for_inference(net), versions
        return cast(Net, self.net)


def fuse_children(module: nn.Module) -> None:
    """Replace the stem and the blocks in a module with faster versions."""
    for name, child in list(module.named_children()):
        if isinstance(child, Block):
            if is_folded(child):
                module.add_module(name, FusedBlock(child))
        elif isinstance(child, nn.Sequential) and isinstance(child[0], ConvBN):
            if is_folded(child):
                module.add_module(name, nn.Sequential(*fuse_layers(child)))
        else:
            fuse_children(child)


def is_folded(module: nn.Module) -> bool:
    """Return whether no convolution in a module is followed by a norm."""
    layers = [layer for layer in module.modules() if isinstance(layer, ConvBN)]
    return all(isinstance(layer.norm, nn.Identity) for layer in layers)


def fuse_layers(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Merge each ReLU into the convolution before it, and drop random layers, which are off."""
    nested = (layer if isinstance(layer, nn.Sequential) else [layer] for layer in layers)
    flat = [layer for group in nested for layer in group if not isinstance(layer, RandomLayer)]
    fused: list[nn.Module] = []
    for layer, following in zip(flat, [*flat[1:], None], strict=True):
        if isinstance(layer, ConvBN):
            fused.append(FusedConv(layer.conv, relu=isinstance(following, nn.ReLU)))
        elif not isinstance(layer, nn.ReLU):  # every ReLU follows a convolution
            fused.append(layer)
    return fused


class FusedBlock(nn.Module):
    """A building block for inference. If its shortcut is the identity, it overwrites its input.

    [B, c_in, H, W] -> [B, c_out, h, w]
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        plain = block.shortcut is None
        *first, last = fuse_layers([*block.body, block.relu] if plain else block.body)
        assert isinstance(last, FusedConv)
        self.first, self.last, self.shortcut = nn.Sequential(*first), last, block.shortcut
        if isinstance(block.shortcut, Projection):
            self.shortcut = FusedConv(block.shortcut.map.conv, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.shortcut is None:
            return self.last(y)
        return self.last.add_relu_(y, self.shortcut(x))
