"""The authors' SGD against its formula in float64."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from reslab.models.config import cifar_config, imagenet_config
from reslab.models.layers import channels_last
from reslab.models.resnet import build_resnet
from reslab.training.optimizer import WeightGroup, build_sgd

RATES = [0.1, 0.1, 0.1, 0.01, 0.01, 0.1, 0.1, 0.001, 0.001]


def gradients(step: int, weight: torch.Tensor) -> torch.Tensor:
    rng = torch.Generator().manual_seed(step)
    return torch.randn(weight.shape, generator=rng, dtype=weight.dtype)


def test_updates_are_those_of_the_authors_framework() -> None:
    """v <- mu v + rate (g + decay w), w <- w - v in float64, across changes of the rate."""
    layer = nn.Linear(5, 4).double()
    optimizer = build_sgd(layer, momentum=0.9, weight_decay=0.01)
    weight, velocity = layer.weight.detach().clone(), torch.zeros(4, 5, dtype=torch.float64)
    for step, rate in enumerate(RATES):
        optimizer.set_rate(rate)
        layer.weight.grad = gradients(step, layer.weight)
        velocity = 0.9 * velocity + rate * (gradients(step, weight) + 0.01 * weight)
        optimizer.step()
        weight = weight - velocity
        torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-12, atol=1e-12)


def test_torchs_own_form_differs_after_a_drop() -> None:
    """At a constant rate both forms agree, so the test above has to change it."""
    ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
    theirs.load_state_dict(ours.state_dict())
    sgd = build_sgd(ours, momentum=0.9, weight_decay=0.0)
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for step, rate in enumerate([0.1, 0.1, 0.01]):
        sgd.set_rate(rate)
        plain.param_groups[0]["lr"] = rate
        for layer, optimizer in ((ours, sgd), (theirs, plain)):
            layer.weight.grad = gradients(step, layer.weight)
            optimizer.step()
    assert not torch.allclose(ours.weight, theirs.weight, rtol=1e-3)


def torch_sgd(groups: Sequence[WeightGroup], momentum: float) -> torch.optim.SGD:
    return torch.optim.SGD(
        [{"params": group.weights, "weight_decay": group.weight_decay} for group in groups],
        lr=0.1,
        momentum=momentum,
        fused=True,
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_bits_are_those_of_torch_sgd(momentum: float) -> None:
    """Without gradients, with gradients of -0, and in any memory layout."""
    ours, theirs = (build_resnet(cifar_config(8, "B")) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    for net in (ours, theirs):
        channels_last(net)
    sgd = build_sgd(ours, momentum=momentum, weight_decay=1e-2)
    same_groups = build_sgd(theirs, momentum=momentum, weight_decay=1e-2).groups
    plain = torch_sgd(same_groups, momentum)
    sgd.set_rate(0.1)
    for step in range(4):
        for ours_weight, theirs_weight in zip(ours.parameters(), theirs.parameters(), strict=True):
            gradient = torch.empty_like(ours_weight).copy_(gradients(step, ours_weight))
            gradient[0] = -0.0
            ours_weight.grad, theirs_weight.grad = gradient, gradient.clone()
        frozen = (ours.fc.weight, theirs.fc.weight)
        for weight in frozen:
            weight.grad = None
        sgd.step()
        plain.step()
    velocities = sgd.state().tensors
    for (name, ours_weight), theirs_weight in zip(
        ours.named_parameters(), theirs.parameters(), strict=True
    ):
        assert same_bits(ours_weight, theirs_weight)
        velocity = plain.state[theirs_weight].get("momentum_buffer")
        expected = torch.zeros_like(theirs_weight) if velocity is None else velocity
        assert same_bits(velocities["momentum." + name], expected)


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.equal(first.detach().view(torch.int32), second.detach().view(torch.int32))


def test_a_weight_whose_first_gradient_comes_later_begins_at_rest() -> None:
    layer = nn.Linear(2, 1, bias=True)
    sgd = build_sgd(layer, momentum=0.5, weight_decay=0.0)
    layer.weight.data.zero_()
    layer.bias.data.zero_()
    sgd.set_rate(1.0)
    for bias_gradient in (None, torch.ones(1), torch.ones(1)):
        layer.weight.grad, layer.bias.grad = torch.ones(1, 2), bias_gradient
        sgd.step()
    assert layer.weight.tolist() == [[-4.25, -4.25]]  # velocities 1, 1.5, 1.75
    assert layer.bias.tolist() == [-2.5]  # 1, 1.5


def test_convolutions_and_the_classifier_decay_and_nothing_else() -> None:
    for config in (cifar_config(20, "B"), imagenet_config(50, classes=7)):
        net = build_resnet(config)
        sgd = build_sgd(net, momentum=0.9, weight_decay=1e-4)
        decayed, others = sgd.groups
        assert (decayed.weight_decay, others.weight_decay) == (1e-4, 0.0)
        expected = {id(m.weight) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
        assert {id(p) for p in decayed.weights} == expected
        assert {id(p) for p in sgd.parameters} == {id(p) for p in net.parameters()}


def test_momentum_goes_out_and_comes_back() -> None:
    first, second = nn.Linear(5, 4), nn.Linear(5, 4)
    second.load_state_dict(first.state_dict())
    sgd = build_sgd(first, momentum=0.9, weight_decay=1e-4)
    assert not any(b.any() for b in sgd.state().tensors.values())
    sgd.set_rate(0.1)
    first.weight.grad, first.bias.grad = gradients(0, first.weight), gradients(1, first.bias)
    sgd.step()
    again = build_sgd(second, momentum=0.9, weight_decay=1e-4)
    second.load_state_dict(first.state_dict())
    again.restore(sgd.state())
    for layer, optimizer in ((first, sgd), (second, again)):
        optimizer.set_rate(0.01)
        layer.weight.grad, layer.bias.grad = gradients(2, layer.weight), gradients(3, layer.bias)
        optimizer.step()
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_a_classifier_learns_at_a_rate_of_its_own() -> None:
    net = build_resnet(cifar_config(8))
    optimizer = build_sgd(net, momentum=0.0, weight_decay=0.0, classifier_rate=10.0)
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    for rate, moved in ((0.1, 1.0), (0.01, 0.1)):
        for weight in net.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.set_rate(rate)
        optimizer.step()
        for name, weight in net.named_parameters():
            step = before[name] - weight.detach()
            expected = moved * (1.0 if name.startswith("fc.") else 0.1)
            torch.testing.assert_close(step, torch.full_like(step, expected), atol=1e-5, rtol=1e-4)
            before[name] = weight.detach().clone()
