"""Optimizers of one's own: rates, states in checkpoints, refusals."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reslab.models.layers import channels_last
from reslab.training.own_optimizer import (
    OwnOptimizer,
    build_own_optimizer,
    describe_optimizer,
)

Build = Callable[[nn.Module], torch.optim.Optimizer]


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    return channels_last(net)


def step(own: OwnOptimizer, number: int, rate: float = 0.01) -> None:
    own.set_rate(rate)
    for index, weight in enumerate(own.net.parameters()):
        rng = torch.Generator().manual_seed(100 * number + index)
        weight.grad = torch.randn(weight.shape, generator=rng)
    own.step()
    own.zero_grad()


BUILDERS: dict[str, Build] = {
    "AdamW": lambda net: torch.optim.AdamW(net.parameters(), amsgrad=True),
    "AdamW fused": lambda net: torch.optim.AdamW(net.parameters(), fused=True),
    "NAdam": lambda net: torch.optim.NAdam(net.parameters()),
    "RMSprop": lambda net: torch.optim.RMSprop(net.parameters(), momentum=0.9, centered=True),
    "Adagrad": lambda net: torch.optim.Adagrad(net.parameters()),
    "Rprop": lambda net: torch.optim.Rprop(net.parameters()),
    "ASGD": lambda net: torch.optim.ASGD(net.parameters()),
    "SGD": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_restored_optimizer_continues_to_the_same_bits(name: str) -> None:
    """Against the optimizer that was never interrupted, through JSON as a checkpoint."""
    first, second = small_net(), small_net(seed=5)
    own = build_own_optimizer(first, BUILDERS[name])
    for number in range(3):
        step(own, number)
    saved = own.state()
    tensors = {key: tensor.clone() for key, tensor in saved.tensors.items()}
    restored = type(saved)(saved.learning_rate, tensors, json.loads(json.dumps(saved.facts)))
    second.load_state_dict(first.state_dict())
    again = build_own_optimizer(second, BUILDERS[name])
    again.restore(restored)
    for number in range(3, 6):
        step(own, number, 0.002)
        step(again, number, 0.002)
    for weight, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(weight, other)
        assert weight.stride() == other.stride()
    one, other = own.state(), again.state()
    assert one.facts == other.facts
    assert one.learning_rate == other.learning_rate == 0.002
    assert one.tensors.keys() == other.tensors.keys()
    for key, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[key]), key
        assert tensor.dtype == other.tensors[key].dtype, key


class Counting(torch.optim.Optimizer):
    """Counts its steps in a group, and keeps a low-precision and an integer state."""

    def __init__(self, params: Any, lr: float = 1.0, betas: tuple[float, float] = (0.5, 0.25)):
        super().__init__(params, {"lr": lr, "betas": betas, "k": 0})

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["k"] += 1
            assert isinstance(group["betas"], tuple)
            for weight in group["params"]:
                state = self.state[weight]
                state.setdefault("low", torch.zeros_like(weight, dtype=torch.bfloat16))
                state.setdefault("signs", torch.zeros_like(weight, dtype=torch.int8))
                state.setdefault("name", "x")
                state["low"].mul_(group["betas"][0]).add_(weight.grad)
                state["signs"].copy_(state["low"].sign())
                with torch.no_grad():
                    weight.sub_(group["lr"] / group["k"] * state["low"].float())


def test_states_keep_their_types_and_numbers_of_a_group_are_restored() -> None:
    first, second = small_net(), small_net()
    own = build_own_optimizer(first, lambda net: Counting(net.parameters()))
    step(own, 0)
    again = build_own_optimizer(second, lambda net: Counting(net.parameters()))
    second.load_state_dict(first.state_dict())
    again.restore(own.state())
    step(own, 1)
    step(again, 1)
    for weight, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(weight, other)
    state = again.state()
    assert state.tensors["optimizer.state.0.weight.low"].dtype == torch.bfloat16
    assert state.tensors["optimizer.state.0.weight.signs"].dtype == torch.int8
    assert state.facts is not None
    assert state.facts["groups"][0]["values"]["k"] == 2
    assert state.facts["state"]["0.weight"]["values"] == {"name": "x"}


def test_a_saved_state_does_not_change_with_training() -> None:
    class Listing(Counting):
        def step(self, closure: Any = None) -> Any:
            super().step()
            self.param_groups[0].setdefault("seen", []).append(1)

    own = build_own_optimizer(small_net(), lambda net: Listing(net.parameters()))
    step(own, 0)
    facts = own.state().facts
    step(own, 1)
    assert facts is not None
    assert facts["groups"][0]["values"]["seen"] == [1]


def test_groups_keep_the_ratio_of_their_rates() -> None:
    def build(net: nn.Module) -> torch.optim.Optimizer:
        weights = list(net.parameters())
        slow = {"params": weights[:2], "lr": 0.0005}
        return torch.optim.AdamW([slow, {"params": weights[2:]}], lr=torch.tensor(0.001))

    own = build_own_optimizer(small_net(), build)
    own.set_rate(0.3)
    rates = [float(group["lr"]) for group in own.torch_optimizer.param_groups]
    assert rates == pytest.approx([0.15, 0.3])
    assert own.state().learning_rate == pytest.approx(0.3)


def test_an_update_is_that_of_torch() -> None:
    """AdamW written out in float64: decoupled decay, bias-corrected moments."""
    weight = nn.Linear(4, 3, bias=False).double()
    own = build_own_optimizer(
        weight, lambda net: torch.optim.AdamW(net.parameters(), betas=(0.8, 0.9), weight_decay=0.1)
    )
    w = weight.weight.detach().clone()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for number, rate in enumerate((0.1, 0.1, 0.01), 1):
        gradient = torch.randn(w.shape, generator=torch.Generator().manual_seed(number)).double()
        weight.weight.grad = gradient.clone()
        own.set_rate(rate)
        own.step()
        w = w * (1 - rate * 0.1)
        m, v = 0.8 * m + 0.2 * gradient, 0.9 * v + 0.1 * gradient**2
        w = w - rate * (m / (1 - 0.8**number)) / ((v / (1 - 0.9**number)).sqrt() + 1e-8)
        torch.testing.assert_close(weight.weight.detach(), w, rtol=1e-12, atol=1e-12)


def test_gradients_of_parameters_that_it_leaves_out_are_deleted_too() -> None:
    own = build_own_optimizer(
        small_net(), lambda net: torch.optim.SGD([next(net.parameters())], 0.1)
    )
    step(own, 0)
    assert all(weight.grad is None for weight in own.net.parameters())


class Closure(torch.optim.SGD):
    def step(self, closure: Any) -> Any:  # pyrefly: ignore[bad-override]
        pass


class Hoarder(torch.optim.SGD):
    """Holds a state that no file can store."""

    def __init__(self, params: Any, value: object) -> None:
        super().__init__(params, lr=0.1)
        self.value = value

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["hoard"] = self.value


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Any = None) -> Any:
        pass


class Failing(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        raise RuntimeError("closure is required")


@lru_cache
def same_again(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (torch.optim.AdamW, "must be a function from the network to its optimizer"),
        (torch.optim.SGD(small_net().parameters(), 0.1), "must be a function from the network"),
        ("AdamW", "must be a function from the network"),
        (lambda net: None, "returned a NoneType, not a torch.optim.Optimizer"),
        (lambda net: torch.optim.LBFGS(net.parameters()), "LBFGS computes the loss several times"),
        (lambda net: Closure(net.parameters(), 0.1), "Closure computes the loss several times"),
        (lambda net: torch.optim.SGD(small_net().parameters(), 0.1), "6 tensors that are not"),
        (lambda net: torch.optim.SGD(net.parameters(), lr=0.0), "a learning rate of 0: give one"),
        (lambda net: WithoutRate(net.parameters()), "WithoutRate has no learning rate"),
        (lambda net: Hoarder(net.parameters(), {1, 2}), "holds 'hoard' of type set"),
        (lambda net: Hoarder(net.parameters(), [torch.ones(1)]), "holds 'hoard' of type list"),
        (lambda net: Failing(net.parameters(), 0.1), "Failing fails to make a step .* is required"),
        (same_again, "returned the same SGD twice"),
    ],
)
def test_optimizers_that_a_run_cannot_use_are_refused(build: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        describe_optimizer(small_net(), build)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_description_leaves_the_network_as_it_was(name: str) -> None:
    net = small_net()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    describe_optimizer(net, BUILDERS[name])
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())
    assert all(weight.grad is None for weight in net.parameters())


def test_the_description_distinguishes_settings_and_members() -> None:
    def halves(rate: float) -> Build:
        def build(net: nn.Module) -> torch.optim.Optimizer:
            weights: list[Tensor] = list(net.parameters())
            first = {"params": weights[:2], "lr": rate}
            return torch.optim.AdamW([first, {"params": weights[2:]}], lr=0.1)

        return build

    builders: list[Build] = [
        lambda net: torch.optim.AdamW(net.parameters()),
        lambda net: torch.optim.Adam(net.parameters()),
        lambda net: torch.optim.AdamW(net.parameters(), weight_decay=0.05),
        lambda net: torch.optim.AdamW(list(net.parameters())[:2]),
        halves(0.1),
        halves(0.05),
    ]
    lines = [describe_optimizer(small_net(), build) for build in builders]
    assert len(set(lines)) == len(lines)
    assert lines[0].startswith("AdamW(); ")
    assert lines[2].startswith("AdamW(weight_decay=0.05); ")
    # the schedule replaces the rate, and the values of the weights are not part of it
    other = describe_optimizer(small_net(3), lambda net: torch.optim.AdamW(net.parameters(), 0.2))
    assert other == lines[0]
    assert describe_optimizer(nn.Linear(2, 2), builders[0]) == lines[0]
