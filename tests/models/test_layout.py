"""Descriptions of networks: which differences they show, and which they do not."""

import pytest
import torch
from torch import nn

from reslab.models.config import BlockPlace, ResNetConfig, cifar_config
from reslab.models.layout import describe_net, is_of_family, must_have_values
from reslab.models.resnet import Block, build_block, build_resnet


class Doubled(Block):
    """A block of the user's own, with the weights of the family's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def first_doubled(config: ResNetConfig, place: BlockPlace) -> nn.Module:
    block = build_block(config, place)
    assert isinstance(block, Block)
    return block if place.index else Doubled(block.body, block.shortcut)


def doubled() -> nn.Module:
    """A residual net whose first block is of another class."""
    return build_resnet(cifar_config(8), block=first_doubled)


def test_the_line_says_what_the_network_is() -> None:
    net = build_resnet(cifar_config(8))
    label, count, digest = describe_net(net).split("; ")
    assert (label, len(digest)) == ("ResNet", 12)
    assert count == f"{sum(weight.numel() for weight in net.parameters()):,} parameters"
    assert describe_net(doubled()).startswith("ResNet with Doubled; ")
    assert describe_net(nn.Linear(3, 2)).startswith("Linear; 8 parameters; ")


def test_values_and_their_type_are_not_part_of_it() -> None:
    one, other = (
        build_resnet(cifar_config(8), torch.Generator().manual_seed(seed)) for seed in (0, 1)
    )
    assert describe_net(one) == describe_net(other) == describe_net(other.half())
    assert is_of_family(other)


def test_names_classes_and_shapes_are() -> None:
    class Wrapped(nn.Linear):
        pass

    class Named(nn.Module):
        def __init__(self, name: str, layer: nn.Module) -> None:
            super().__init__()
            self.add_module(name, layer)

    nets = [
        Named("fc", nn.Linear(3, 2)),
        Named("head", nn.Linear(3, 2)),
        Named("fc", nn.Linear(3, 4)),
        Named("fc", Wrapped(3, 2)),
        Named("fc", nn.Linear(3, 2, bias=False)),
    ]
    assert len({describe_net(net).rpartition("; ")[2] for net in nets}) == len(nets)


def test_a_network_on_the_meta_device_has_no_values() -> None:
    must_have_values(nn.Linear(2, 3))
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"0\.weight of the network is on the meta device"):
        must_have_values(net)


def test_a_network_is_of_the_family_if_its_configuration_describes_it() -> None:
    for config in (cifar_config(8), cifar_config(8, "C"), cifar_config(8, None)):
        assert is_of_family(build_resnet(config))
    assert not is_of_family(doubled())
    assert not is_of_family(nn.Linear(3, 2))
    other = build_resnet(cifar_config(8))
    other.fc = nn.Linear(64, 7)  # the configuration still says ten classes
    assert not is_of_family(other)
