"""The one update path: a mini-batch cut into virtual GPUs, then one step of the authors' SGD."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reslab.models.batchnorm import NormStatistics, norms_of
from reslab.runtime.device import Processes, SingleProcess
from reslab.training.schedule import Schedule
from reslab.training.task import Task

# Change a net by one step, for the draws of a mini-batch and a learning rate; afterwards weights,
# momentum and moving averages are those after the step. Returns a table with one row for each
# virtual GPU of all processes, float64 [virtual GPUs, statistics + 2]: the batch-norm statistics
# of its forward pass, its mean loss, its error in percent. Every way to compute is one of these.
Update = Callable[[Any, float], Tensor]
LOSS, ERROR = -2, -1  # columns of the table; the statistics come before them
DECAYED = (nn.Conv2d, nn.Linear)  # layers whose weights decay


@dataclass(frozen=True)
class UpdateResult:
    """What one update gave. Loss and error stay on the device until somebody reads them."""

    iteration: int  # updates done, this one included
    learning_rate: float
    loss: Tensor  # mean over the mini-batch, []
    train_error: Tensor  # percent of the augmented mini-batch, []
    warmed_up: bool  # whether the warm-up ended with this update


def training_steps(
    update: Update, draws: Callable[[int], Any], schedule: Schedule, iterations: Iterable[int]
) -> Iterator[UpdateResult]:
    """Make one update for each of `iterations`, counted from 0, at the rate of the schedule.

    `draws(k)` gives the random choices of mini-batch k.
    """
    for iteration in iterations:
        learning_rate = schedule.rate(iteration)
        table = update(draws(iteration), learning_rate)
        loss, train_error = (table[:, column].float().mean() for column in (LOSS, ERROR))
        warmed_up = schedule.observe_training(iteration + 1, train_error)
        yield UpdateResult(iteration + 1, learning_rate, loss, train_error, warmed_up)


def eager_update(
    prepare: Callable[[Any], Sequence[Any]],
    loss: Callable[[Any], tuple[Tensor, Tensor]],
    optimizer: torch.optim.SGD,
    norms: Sequence[nn.BatchNorm2d] = (),
    processes: Processes = SingleProcess(),
) -> Update:
    """Return the update that runs forward and backward share by share, as PyTorch comes.

    `prepare(draws)` gives the shares of the mini-batch that this process has, one for each of its
    virtual GPUs and all of one size; `loss(share)` gives mean loss and error in percent. Every
    share has a forward pass, and so batch-norm statistics, of its own. Gradients, statistics,
    losses and errors are added in the order of the shares, whichever process computed them, so the
    sums agree to the last bit.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    statistics = NormStatistics(norms, weights[0].device)
    gradients = processes.gradients(weights)

    def backward(share: Any, shares: int) -> Tensor:
        """Add the gradients of one of `shares`; return its row of the table."""
        share_loss, error = loss(share)
        (share_loss / shares).backward()
        gradients.store()
        facts = torch.stack([share_loss.detach().double(), error.double()])
        return torch.cat([statistics.row(), facts])

    def update(draws: Any, learning_rate: float) -> Tensor:
        set_learning_rate(optimizer, learning_rate)
        shares = prepare(draws)
        averages = statistics.row()
        with statistics.without_averaging() as momentum:
            rows = [backward(share, len(shares) * processes.count) for share in shares]
        gradients.reduce()
        optimizer.step()
        optimizer.zero_grad()
        table = processes.all_gather(torch.stack(rows))
        for row in table:
            averages.lerp_(row[:LOSS], momentum)
        foreign_passes = len(table) - len(shares)  # forward passes that other processes made
        statistics.write(averages, foreign_passes)
        return table

    return update


def eager_update_of(task: Task, prepare: Callable[[Any], Sequence[Any]] | None = None) -> Update:
    """Return the update of a task's net; batch norm that is in evaluation mode stays as it is."""
    return eager_update(
        prepare or task.prepare,
        task.loss,
        task.optimizer,
        [norm for norm in norms_of(task.net) if norm.training],
        task.device.processes,
    )


def build_sgd(
    net: nn.Module, *, momentum: float, weight_decay: float, classifier_rate: float = 1.0
) -> torch.optim.SGD:
    """Build SGD that decays the weights of convolutions and the classifier alone.

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


def momentum_buffers(net: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """Return the velocity of each parameter by name, zeros where no update was made yet."""
    state = optimizer.state
    return {
        name: state[weight].get("momentum_buffer", torch.zeros_like(weight))
        for name, weight in net.named_parameters()
    }


def restore_momentum(
    net: nn.Module, optimizer: torch.optim.SGD, buffers: dict[str, Tensor], rate: float
) -> None:
    """Put back saved velocities, with the rate that they were last scaled for."""
    for name, weight in net.named_parameters():
        # preserve_format: a buffer laid out like its weight is what the fused update wants
        buffer = torch.empty_like(weight).copy_(buffers[name])
        optimizer.state[weight]["momentum_buffer"] = buffer
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
