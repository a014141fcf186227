"""SGD in the authors' form, decaying the weights that the paper decays."""

import torch
from torch import nn

DECAYED = (nn.Conv2d, nn.Linear)


def build_sgd(
    net: nn.Module, *, momentum: float, weight_decay: float, classifier_rate: float = 1.0
) -> torch.optim.SGD:
    """SGD with weight decay on the weights of convolutions and the classifier alone.

    The classifier learns at `classifier_rate` times the rate of the rest.
    """
    decayed = {id(m.weight) for m in net.modules() if isinstance(m, DECAYED)}
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
    classifier = {id(weight) for m in linear for weight in m.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for weight in net.parameters():
        scale = classifier_rate if id(weight) in classifier else 1.0
        decay = weight_decay if id(weight) in decayed else 0.0
        groups.setdefault((scale, decay), []).append(weight)
    return torch.optim.SGD(
        [
            {"params": weights, "weight_decay": decay, "scale": scale}
            for (scale, decay), weights in groups.items()
        ],
        lr=0.0,  # set before each update; none is meant until then
        momentum=momentum,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.SGD, rate: float) -> None:
    """Change the rate as the authors' framework does, where the velocity carries the rate.

    Theirs: v <- mu v + rate g, w <- w - v. torch's: v <- mu v + g, w <- w - rate v. The two agree
    while the rate stays; when it changes, torch's buffer times old / new is theirs.
    """
    for group in optimizer.param_groups:
        old, group["lr"] = group["lr"], rate * group["scale"]
        if old == group["lr"]:
            continue
        for weight in group["params"]:
            buffer = optimizer.state[weight].get("momentum_buffer")
            if buffer is not None:
                buffer.mul_(old / group["lr"])


def momentum_buffers(net: nn.Module, optimizer: torch.optim.SGD) -> dict[str, torch.Tensor]:
    """The velocity of each parameter by its name, zeros where no update was made yet."""
    state = optimizer.state
    return {
        name: state[weight].get("momentum_buffer", torch.zeros_like(weight))
        for name, weight in net.named_parameters()
    }


def restore_momentum(
    net: nn.Module, optimizer: torch.optim.SGD, buffers: dict[str, torch.Tensor], rate: float
) -> None:
    """Put saved velocities back, with the rate under which they were last scaled."""
    for name, weight in net.named_parameters():
        # preserve_format: a buffer laid out like its weight is what the fused update wants
        buffer = torch.empty_like(weight).copy_(buffers[name])
        optimizer.state[weight]["momentum_buffer"] = buffer
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
