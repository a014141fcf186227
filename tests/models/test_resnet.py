from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reslab.models.config import BlockPlace, ResNetConfig, cifar_config, imagenet_config
from reslab.models.layers import ConvBN, Projection, ZeroPadding
from reslab.models.parts import BatchNorm, GroupNorm, NoisyBatchNorm, NoNorm
from reslab.models.random_layers import ChannelNoise, Dropout, StochasticDepth, random_layers
from reslab.models.resnet import Block, ResNet, build_resnet


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blocks(net: ResNet) -> Iterator[Block]:
    return (module for module in net.modules() if isinstance(module, Block))


def bn_by_hand(x: Tensor, norm: nn.Module) -> Tensor:
    assert isinstance(norm, nn.BatchNorm2d)
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
    halving = list(blocks(net))[3].body  # the first block after the three of conv2_x
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


def changed(config: ResNetConfig, **changes: object) -> ResNetConfig:
    """Return a valid configuration with changes."""
    return ResNetConfig.model_validate(dict(config) | changes)


def gn_by_hand(x: Tensor, groups: int) -> Tensor:
    """Normalise over the channels of each group and all positions, image by image."""
    grouped = x.unflatten(1, (groups, -1))
    mean = grouped.mean((2, 3, 4), keepdim=True)
    var = grouped.var((2, 3, 4), unbiased=False, keepdim=True)
    return ((grouped - mean) / (var + 1e-5).sqrt()).flatten(1, 2)


def test_group_norm_takes_the_place_of_batch_norm() -> None:
    config = changed(cifar_config(8, "B"), norm=GroupNorm(groups=4))
    net = build_resnet(config, rng()).double()
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    block = list(blocks(net))[1]
    x = torch.randn(4, 16, 8, 8, generator=rng(), dtype=torch.float64).relu()
    first, _, second = block.body
    assert isinstance(first, ConvBN)
    assert isinstance(second, ConvBN)
    assert isinstance(block.shortcut, Projection)
    y = gn_by_hand(F.conv2d(x, first.conv.weight, stride=2, padding=1), 4).relu()
    y = gn_by_hand(F.conv2d(y, second.conv.weight, padding=1), 4)
    y = y + gn_by_hand(F.conv2d(x, block.shortcut.map.conv.weight, stride=2), 4)
    torch.testing.assert_close(block(x), y.relu(), rtol=1e-10, atol=1e-10)


def test_without_a_norm_convolutions_have_biases_of_zero() -> None:
    net = build_resnet(changed(cifar_config(8), norm=NoNorm()), rng())
    layers = [m for m in net.modules() if isinstance(m, ConvBN)]
    biases = [layer.conv.bias for layer in layers]
    assert all(bias is not None and not bias.any() for bias in biases)
    layer = layers[1]
    x = torch.randn(2, 16, 8, 8, generator=rng())
    layer.conv.bias = nn.Parameter(torch.arange(16.0))
    expected = F.conv2d(x, layer.conv.weight, padding=1) + torch.arange(16.0)[:, None, None]
    torch.testing.assert_close(layer(x), expected)


def test_each_block_has_its_own_norm_and_shortcut() -> None:
    norms = (GroupNorm(), BatchNorm(), NoNorm())
    net = build_resnet(changed(cifar_config(8), norm=norms, shortcut=("C", "B", None)), rng())
    kinds = {
        name.removesuffix(".norm"): type(module)
        for name, module in net.named_modules()
        if name.endswith(".norm")
    }
    assert kinds == {
        "stem.0": nn.GroupNorm,  # as in the first block
        "stages.0.0.body.0": nn.GroupNorm,
        "stages.0.0.body.2": nn.GroupNorm,
        "stages.0.0.shortcut.map": nn.GroupNorm,
        "stages.1.0.body.0": nn.BatchNorm2d,
        "stages.1.0.body.2": nn.BatchNorm2d,
        "stages.1.0.shortcut.map": nn.BatchNorm2d,
        "stages.2.0.body.0": nn.Identity,
        "stages.2.0.body.2": nn.Identity,
    }
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("config", [cifar_config(14, "B"), imagenet_config(50)])
def test_random_layers_have_no_weights_and_change_no_name(config: ResNetConfig) -> None:
    random = changed(config, norm=NoisyBatchNorm(), stochastic_depth=0.5, dropout=0.5)
    with torch.device("meta"):
        plain, net = ResNet(config), ResNet(random)
    shapes = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    assert {name: tensor.shape for name, tensor in net.state_dict().items()} == shapes
    counts = dict.fromkeys((ChannelNoise, Dropout, StochasticDepth), 0)
    for layer in random_layers(net):
        counts[type(layer)] += 1
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    places = len(config.places())
    assert counts == {ChannelNoise: norms, Dropout: places, StochasticDepth: places}


def test_random_layers_stand_at_the_ends_of_the_residual_function() -> None:
    config = changed(imagenet_config(50), stochastic_depth=0.5, dropout=0.5)
    with torch.device("meta"):
        body = next(blocks(ResNet(config))).body
    names = [type(part).__name__ for part in body]
    assert names == ["ConvBN", "ReLU", "ConvBN", "Sequential", "ConvBN", "StochasticDepth"]
    assert isinstance(body[3], nn.Sequential)
    assert [type(part).__name__ for part in body[3]] == ["ReLU", "Dropout"]
    assert isinstance(body[-1], StochasticDepth)
    assert body[-1].survival == pytest.approx(1 - 0.5 / 16)


@pytest.mark.parametrize("config", [cifar_config(14), imagenet_config(18, classes=10)])
def test_random_layers_are_the_identity_when_evaluating(config: ResNetConfig) -> None:
    random = changed(config, norm=NoisyBatchNorm(), stochastic_depth=0.5, dropout=0.5)
    images = torch.randn(2, 3, 64, 64, generator=rng())
    plain, net = (build_resnet(it, rng(4)).eval() for it in (config, random))
    assert torch.equal(net(images), plain(images))


def test_features_are_pooled_and_classified() -> None:
    net = build_resnet(cifar_config(8), rng()).eval()
    images = torch.randn(2, 3, 32, 24, generator=rng())
    features = net.features(images)
    assert features.shape == (2, 64, 8, 6)
    expected = features.mean((2, 3)) @ net.fc.weight.T + net.fc.bias
    torch.testing.assert_close(net(images), expected)
    dense = net.dense(images, 6)
    assert dense.shape == (2, 10, 3, 1)
    first = features[:, :, :6].mean((2, 3)) @ net.fc.weight.T + net.fc.bias
    torch.testing.assert_close(dense[:, :, 0, 0], first)


class PreActivation(nn.Module):
    """The block of "Identity Mappings in Deep Residual Networks", with an identity shortcut."""

    def __init__(self, place: BlockPlace) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(place.c_in)
        self.conv = nn.Conv2d(place.c_in, place.c_out, 3, place.stride, padding=1, bias=False)
        self.shortcut = nn.Conv2d(place.c_in, place.c_out, 1, place.stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.conv(self.norm(x).relu())


def test_a_builder_of_ones_own_gets_every_place_and_its_weights_come_from_the_generator() -> None:
    places: list[BlockPlace] = []

    def block(config: ResNetConfig, place: BlockPlace) -> nn.Module:
        places.append(place)
        return PreActivation(place)

    config = cifar_config(14)
    torch.manual_seed(1)
    net = build_resnet(config, rng(5), block=block)
    assert tuple(places) == config.places()
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    torch.manual_seed(2)
    again = build_resnet(config, rng(5), block=lambda _, place: PreActivation(place))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    fan = net.stages[1][0].conv.weight[0].numel()  # pyrefly: ignore[bad-index, missing-attribute]
    std = net.stages[1][0].conv.weight.std()  # pyrefly: ignore[bad-index, missing-attribute]
    assert std.item() == pytest.approx((2 / fan) ** 0.5, rel=0.05)
