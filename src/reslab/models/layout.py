"""The layout of a network that no configuration describes: a line for people, with a digest."""

from hashlib import sha256

from torch import nn

from reslab.models.resnet import ResNet

DIGITS = 12  # of a digest in a line for people
PACKAGES = ("torch", "reslab")  # whose classes are not the user's own


def layout(net: nn.Module) -> list[tuple[str, str]]:
    """Return the class of each module, and the shape of each weight and buffer, by name.

    Neither values are covered nor settings without weights, such as a stride.
    """
    classes = [(name, type(module).__name__) for name, module in net.named_modules()]
    shapes = [(name, str(tuple(tensor.shape))) for name, tensor in net.state_dict().items()]
    return [*classes, *shapes]


def describe_net(net: nn.Module) -> str:
    """Return `label; number of parameters; digest of the layout` of a network.

    The label is its class; a `ResNet` is followed by the first class of the user's own in it.
    """
    digest = sha256(repr(layout(net)).encode()).hexdigest()[:DIGITS]
    count = sum(weight.numel() for weight in net.parameters())
    label = type(net).__name__
    if isinstance(net, ResNet):
        kinds = [type(module) for module in net.modules()]
        own = [kind.__name__ for kind in kinds if not kind.__module__.startswith(PACKAGES)]
        label = " with ".join([label, *own[:1]])
    return f"{label}; {count:,} parameters; {digest}"


def is_of_family(net: nn.Module) -> bool:
    """Return whether a network is what its configuration describes, block by block."""
    return isinstance(net, ResNet) and layout(net) == layout(ResNet(net.config))
