import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reslab.models.config import ResNetConfig, cifar_config, imagenet_config
from reslab.models.layers import ConvBN, Projection, ZeroPadding
from reslab.models.resnet import Block, ResNet, build_resnet


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blocks(net: ResNet) -> Iterator[Block]:
    return (module for module in net.modules() if isinstance(module, Block))


def bn_by_hand(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = norm.weight[:, None, None], norm.bias[:, None, None]
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


@pytest.mark.parametrize("option", [None, "A", "B", "C"])
def test_a_block_computes_the_papers_equations(option: str | None) -> None:
    """Eqn. 1 and 2 in float64: BN before ReLU and before the addition, ReLU after it."""
    config = cifar_config(8).model_copy(update={"shortcut": option})
    block = list(blocks(build_resnet(config, rng()).double().train()))[1]
    x = torch.randn(4, 16, 8, 8, generator=rng(), dtype=torch.float64).relu()
    first, _, second = block.body
    assert isinstance(first, ConvBN)
    assert isinstance(second, ConvBN)
    y = F.conv2d(x, first.conv.weight, stride=2, padding=1)
    y = F.conv2d(bn_by_hand(y, first.norm).relu(), second.conv.weight, padding=1)
    y = bn_by_hand(y, second.norm)
    if option == "A":
        y = y + torch.cat([x[:, :, ::2, ::2], torch.zeros(4, 16, 4, 4)], 1)
    elif option:
        assert isinstance(block.shortcut, Projection)
        projected = F.conv2d(x, block.shortcut.map.conv.weight, stride=2)
        y = y + bn_by_hand(projected, block.shortcut.map.norm)
    torch.testing.assert_close(block(x), y.relu(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("config", "projections"),
    [
        (imagenet_config(34, None), 0),
        (imagenet_config(34, "A"), 0),
        (imagenet_config(34, "B"), 3),
        (imagenet_config(34, "C"), 16),  # "many (thirteen) projection shortcuts" more than B
        (imagenet_config(50), 4),
        (cifar_config(110), 0),
    ],
)
def test_projections_stand_where_the_option_says(config: ResNetConfig, projections: int) -> None:
    with torch.device("meta"):
        net = ResNet(config)
    assert sum(isinstance(m, Projection) for m in net.modules()) == projections


def test_a_plain_net_is_the_residual_net_without_its_shortcuts() -> None:
    plain, residual = (
        build_resnet(cifar_config(20, None), rng(3)),
        build_resnet(cifar_config(20), rng(3)),
    )
    assert plain.state_dict().keys() == residual.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), residual.parameters(), strict=True)
    )
    assert all(block.shortcut is None for block in blocks(plain))
    assert sum(isinstance(m, ZeroPadding) for m in residual.modules()) == 2


@pytest.mark.parametrize(("stride_on", "expected"), [("1x1", (2, 1, 1)), ("3x3", (1, 2, 1))])
def test_a_bottleneck_halves_where_its_config_says(
    stride_on: str, expected: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        net = ResNet(imagenet_config(50).model_copy(update={"stride_on": stride_on}))
    halving = list(blocks(net))[3].body  # after the three of conv2_x
    strides = [layer.conv.stride[0] for layer in halving if isinstance(layer, ConvBN)]
    assert tuple(strides) == expected


def test_resnet_101_has_91_convolutions_up_to_conv4_x() -> None:
    """Appendix A counts conv1 ... conv4_x of ResNet-101."""
    with torch.device("meta"):
        net = ResNet(imagenet_config(101))
    trunk = nn.Sequential(net.stem, *list(net.stages)[:3])
    convolutions = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    projections = [m for m in trunk.modules() if isinstance(m, Projection)]
    assert len(convolutions) - len(projections) == 91


def test_imagenet_maps_have_the_sizes_of_table_1() -> None:
    with torch.device("meta"):
        net = ResNet(imagenet_config(18))
        x = net.stem(torch.empty(1, 3, 224, 224))
        sizes = [x.shape[-1]]
        for stage in net.stages:
            x = stage(x)
            sizes.append(x.shape[-1])
    assert sizes == [56, 56, 28, 14, 7]


@settings(max_examples=10, deadline=None)
@given(height=st.integers(16, 50), width=st.integers(16, 50))
def test_any_input_size_works(height: int, width: int) -> None:
    net = build_resnet(cifar_config(8), rng()).eval()
    assert net(torch.zeros(2, 3, height, width)).shape == (2, 10)


def test_a_map_under_4x4_is_warned_of() -> None:
    net = build_resnet(imagenet_config(18, classes=10), rng()).eval()
    with pytest.warns(UserWarning, match=r"32x32 leave a feature map of 1x1"):
        net(torch.zeros(1, 3, 32, 32))


def test_a_map_of_4x4_is_not() -> None:
    net = build_resnet(cifar_config(8), rng()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert net(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


def test_weights_depend_on_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = build_resnet(cifar_config(8), rng(5)).state_dict()
    torch.manual_seed(2)
    second = build_resnet(cifar_config(8), rng(5)).state_dict()
    other = build_resnet(cifar_config(8), rng(6)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_nothing_starts_at_zero_but_batch_norms_shift() -> None:
    """No zero-gamma: the paper's blocks add their full residual from the start."""
    net = build_resnet(cifar_config(8), rng())
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)
