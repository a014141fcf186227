"""Networks whose batch norms are computed by the kernels: the same function, and what they lack."""

import copy

import pytest
import torch
from tests.training.test_classification import task
from torch import Tensor, nn

from reslab.kernels.build import Kernels
from reslab.models.batchnorm import norms_of, train_mode
from reslab.models.config import ResNetConfig
from reslab.models.layers import channels_last
from reslab.models.random_layers import draw_numbers, numbers_for, random_layers
from reslab.models.resnet import ResNet, build_resnet
from reslab.training.fused_norms import FusedBlock, lacking, with_fused_norms

CHANGES = [
    {"shortcut": "A"}, {"shortcut": "B"}, {"shortcut": "C"}, {"shortcut": None},
    {"stem": "imagenet", "block": "bottleneck", "shortcut": "B"},
    {"dropout": 0.2, "stochastic_depth": 0.5, "norm": {"kind": "noisy-batch"}, "shortcut": "C"},
    {"norm": {"kind": "group"}},
]  # fmt: skip


def net_of(**changes: object) -> ResNet:
    described = {
        "stem": "cifar", "block": "basic", "blocks": (1, 2), "widths": (16, 32), "classes": 5,
        "shortcut": "A",
    } | changes  # fmt: skip
    net = build_resnet(ResNetConfig.model_validate(described))
    rng = torch.Generator().manual_seed(3)
    for norm in norms_of(net):
        norm.bias.data.normal_(0, 0.3, generator=rng)
        norm.weight.data.uniform_(0.5, 1.5, generator=rng)
    return channels_last(net).train()


def images(count: int = 6) -> Tensor:
    rng = torch.Generator().manual_seed(4)
    drawn = torch.randn(count, 3, 32, 32, generator=rng)
    return drawn.contiguous(memory_format=torch.channels_last)


def scores_of(net: nn.Module, random: nn.Module) -> Tensor:
    """Return the scores with equal numbers for the random layers of `random`."""
    numbers = draw_numbers(random, 6, torch.Generator().manual_seed(5))
    with numbers_for(net, numbers):
        scores = net(images())
        scores.square().sum().backward()
    return scores.detach()


def must_be_equal(ours: ResNet, torchs: ResNet) -> None:
    """Compare gradients and statistics."""
    for (name, weight), other in zip(ours.named_parameters(), torchs.parameters(), strict=True):
        if other.grad is None:
            assert weight.grad is None, name
            continue
        assert weight.grad is not None, name
        # rounding may switch a few ReLUs
        assert (weight.grad - other.grad).norm() <= 1e-2 * other.grad.norm(), name
    for name, expected in torchs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], expected, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("changes", CHANGES)
def test_scores_gradients_and_statistics_are_those_of_the_network(
    kernels: Kernels, changes: dict[str, object], recompute: bool
) -> None:
    net = net_of(**changes)
    net.recompute = recompute
    other = copy.deepcopy(net)
    fused = with_fused_norms(net, kernels)
    assert any(isinstance(module, FusedBlock) for module in fused.modules())
    assert [*map(id, random_layers(fused))] == [*map(id, random_layers(net))]
    scores = scores_of(fused, net)
    assert torch.allclose(scores, scores_of(other, other), rtol=1e-4, atol=1e-4)
    must_be_equal(net, other)


def test_fixed_statistics_stay_and_gradients_pass(kernels: Kernels) -> None:
    net = net_of(stem="imagenet", block="bottleneck", shortcut="B")
    net(images())  # statistics other than 0 and 1
    train_mode(net, keep_statistics=True)
    other = copy.deepcopy(net)
    scores = scores_of(with_fused_norms(net, kernels), net)
    assert torch.allclose(scores, scores_of(other, other), rtol=1e-4, atol=1e-4)
    must_be_equal(net, other)


def test_the_network_itself_stays(kernels: Kernels) -> None:
    net = net_of(shortcut="B")
    before = [type(module) for module in net.modules()]
    names = net.state_dict().keys()
    with_fused_norms(net, kernels)
    assert [type(module) for module in net.modules()] == before
    assert net.state_dict().keys() == names


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (["model.norm=group"], "networks without batch norm"),
        (["model.widths=[8,16,32]"], "channels that are not multiples of 16"),
        (["model.widths=[16,32,48]"], None),
    ],
)
def test_a_part_that_is_lacking_is_named(changes: list[str], part: str | None) -> None:
    assert lacking(task(*changes)) == part
