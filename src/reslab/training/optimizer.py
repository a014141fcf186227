"""The optimizer of a run: SGD as in the authors' framework, or the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

DECAYED = (nn.Conv2d, nn.Linear)  # layers with weight decay
MOMENTUM = "momentum."  # prefix of the velocities in a checkpoint
Facts = dict[str, Any]


@dataclass(frozen=True)
class OptimizerState:
    """The state of an optimizer after some update, for a checkpoint."""

    learning_rate: float  # of the last update; the authors' velocities are scaled to it
    tensors: dict[str, Tensor]  # by their names in the checkpoint
    facts: Facts | None = None  # for JSON; None: the authors' SGD, which has none


class Stepper(Protocol):
    """The interface of an optimizer for an update, with the learning rate set elsewhere."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that it trains."""
        ...

    def step(self) -> None:
        """Update the parameters from their gradients."""
        ...

    def zero_grad(self) -> None:
        """Delete all gradients."""
        ...


class Optimizer(Stepper, Protocol):
    """The interface of an optimizer for updates, the schedule and checkpoints."""

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        ...

    def state(self) -> OptimizerState:
        """Return the current state; its tensors are not copied."""
        ...

    def restore(self, state: OptimizerState) -> None:
        """Continue from a state read from a checkpoint."""
        ...


@final
@dataclass(frozen=True)
class WeightGroup:
    """Weights with the same decay and learning rate."""

    weights: list[nn.Parameter]
    weight_decay: float
    scale: float  # multiplies the learning rate


@final
class AuthorsSGD:
    """SGD with momentum as in the authors' framework, whose velocity includes the learning rate.

    Caffe: v <- mu v + rate g, w <- w - v. torch: v <- mu v + g, w <- w - rate v. The two agree
    while the rate is constant; when it changes, torch's velocity is scaled by old / new to match.
    The arithmetic is torch's fused kernel. torch.optim.SGD calls the same one, but importing it
    takes longer than a hundred iterations of a small network: it loads torch's compiler.
    Velocities are never replaced by other tensors.
    """

    def __init__(self, net: nn.Module, groups: Sequence[WeightGroup], momentum: float) -> None:
        self.net, self.groups, self.momentum = net, groups, momentum
        self.rate = 0.0  # set before each update
        self.velocities: dict[nn.Parameter, Tensor] = {}  # in torch's form; from the first step on

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [weight for group in self.groups for weight in group.weights]

    def set_rate(self, rate: float) -> None:
        for group in self.groups:
            old, new = self.rate * group.scale, rate * group.scale
            if old == new:
                continue
            for weight in group.weights:
                if weight in self.velocities:
                    self.velocities[weight].mul_(old / new)
        self.rate = rate

    def step(self) -> None:
        for group in self.groups:
            self.step_group(group, self.rate * group.scale)

    @torch.no_grad()
    def step_group(self, group: WeightGroup, rate: float | Tensor) -> None:
        """Update the weights of one group that have gradients.

        A rate that is a tensor stays on the device, so that a CUDA graph can read it.
        """
        weights = [weight for weight in group.weights if weight.grad is not None]
        if not weights:
            return
        first = not any(weight in self.velocities for weight in weights)
        for weight in weights if self.momentum else ():
            if weight not in self.velocities:
                # zeros_like keeps the weight's memory format, which the fused kernel needs
                self.velocities[weight] = torch.zeros_like(weight)
        torch._fused_sgd_(  # pyrefly: ignore[no-matching-overload]
            weights,
            [weight.grad for weight in weights],
            [self.velocities[weight] for weight in weights] if self.momentum else [],
            weight_decay=group.weight_decay,
            momentum=self.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=first,
            grad_scale=None,
            found_inf=None,
        )

    def zero_grad(self) -> None:
        for weight in self.parameters:
            weight.grad = None

    def state(self) -> OptimizerState:
        """Return the velocity of each parameter; zeros before the first update."""
        velocities = {
            MOMENTUM + name: self.velocities.get(weight, torch.zeros_like(weight))
            for name, weight in self.net.named_parameters()
        }
        return OptimizerState(self.rate, velocities)

    def restore(self, state: OptimizerState) -> None:
        for name, weight in self.net.named_parameters():
            if weight not in self.velocities:
                # in the weight's memory format, as in `step_group`
                self.velocities[weight] = torch.zeros_like(weight)
            self.velocities[weight].copy_(state.tensors[MOMENTUM + name])
        self.rate = state.learning_rate


def build_sgd(
    net: nn.Module, *, momentum: float, weight_decay: float, classifier_rate: float = 1.0
) -> AuthorsSGD:
    """Build the authors' SGD, with weight decay only on convolution and classifier weights.

    The classifier's learning rate is `classifier_rate` times that of the other layers.
    """
    decayed = {id(m.weight) for m in net.modules() if isinstance(m, DECAYED)}
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
    classifier = {id(weight) for m in linear for weight in m.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for weight in net.parameters():
        scale = classifier_rate if id(weight) in classifier else 1.0
        decay = weight_decay if id(weight) in decayed else 0.0
        groups.setdefault((decay, scale), []).append(weight)
    return AuthorsSGD(
        net, [WeightGroup(weights, *settings) for settings, weights in groups.items()], momentum
    )
