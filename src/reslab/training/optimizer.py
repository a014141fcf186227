"""The optimizer of a run: SGD as in the authors' framework, or the user's own."""

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
class AuthorsSGD:
    """SGD with momentum as in the authors' framework, whose velocity includes the learning rate.

    Caffe: v <- mu v + rate g, w <- w - v. torch: v <- mu v + g, w <- w - rate v. The two agree
    while the rate is constant; when it changes, torch's buffer is scaled by old / new to match.
    """

    net: nn.Module
    sgd: torch.optim.SGD  # each group has a "scale", which multiplies the learning rate

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [weight for group in self.sgd.param_groups for weight in group["params"]]

    def set_rate(self, rate: float) -> None:
        for group in self.sgd.param_groups:
            old, group["lr"] = group["lr"], rate * group["scale"]
            if old == group["lr"]:
                continue
            for weight in group["params"]:
                buffer = self.sgd.state[weight].get("momentum_buffer")
                if buffer is not None:
                    buffer.mul_(old / group["lr"])

    def step(self) -> None:
        self.sgd.step()

    def zero_grad(self) -> None:
        self.sgd.zero_grad()

    def state(self) -> OptimizerState:
        """Return the velocity of each parameter; zeros before the first update."""
        state = self.sgd.state
        velocities = {
            MOMENTUM + name: state[weight].get("momentum_buffer", torch.zeros_like(weight))
            for name, weight in self.net.named_parameters()
        }
        return OptimizerState(self.sgd.param_groups[0]["lr"], velocities)

    def restore(self, state: OptimizerState) -> None:
        for name, weight in self.net.named_parameters():
            # empty_like keeps the weight's memory format, which the fused update needs
            buffer = torch.empty_like(weight).copy_(state.tensors[MOMENTUM + name])
            self.sgd.state[weight]["momentum_buffer"] = buffer
        for group in self.sgd.param_groups:
            group["lr"] = state.learning_rate * group["scale"]


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
        groups.setdefault((scale, decay), []).append(weight)
    sgd = torch.optim.SGD(
        [
            {"params": weights, "weight_decay": decay, "scale": scale}
            for (scale, decay), weights in groups.items()
        ],
        lr=0.0,  # a placeholder: the rate is set before each update
        momentum=momentum,
        fused=True,
    )
    return AuthorsSGD(net, sgd)
