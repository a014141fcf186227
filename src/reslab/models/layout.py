"""Identify a network that no configuration describes, by a readable line with a digest."""

from hashlib import sha256

from torch import nn

from reslab.models.resnet import ResNet

DIGITS = 12  # hexadecimal digits of the digest in `describe_net`
PACKAGES = ("torch", "reslab")  # their classes are not the user's own


def layout(net: nn.Module) -> list[tuple[str, str]]:
    """Return the class of each module, and the shape of each weight and buffer, by name.

    Values are not included, nor settings that change no shape, such as a stride.
    """
    classes = [(name, type(module).__name__) for name, module in net.named_modules()]
    shapes = [(name, str(tuple(tensor.shape))) for name, tensor in net.state_dict().items()]
    return [*classes, *shapes]


def describe_net(net: nn.Module) -> str:
    """Return a line about a network: `label; number of parameters; digest of its layout`.

    The label is the network's class. If a `ResNet` contains modules of the user's own, the label
    also names the class of the first.
    """
    digest = sha256(repr(layout(net)).encode()).hexdigest()[:DIGITS]
    count = sum(weight.numel() for weight in net.parameters())
    label = type(net).__name__
    if isinstance(net, ResNet):
        kinds = [type(module) for module in net.modules()]
        own = [kind.__name__ for kind in kinds if not kind.__module__.startswith(PACKAGES)]
        label = " with ".join([label, *own[:1]])
    return f"{label}; {count:,} parameters; {digest}"


def must_have_values(net: nn.Module) -> None:
    """Raise ValueError if any weight or buffer of a network is on the meta device."""
    for name, tensor in net.state_dict().items():
        if tensor.is_meta:
            raise ValueError(
                f"{name} of the network is on the meta device, where it has no values: build the "
                "network on another device, or load its weights with `assign=True`"
            )


def is_of_family(net: nn.Module) -> bool:
    """Return whether a network is a `ResNet` with the layout that its configuration describes."""
    return isinstance(net, ResNet) and layout(net) == layout(ResNet(net.config))
