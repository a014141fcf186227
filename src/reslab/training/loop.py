"""The one update path: a mini-batch cut into virtual GPUs, then one step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reslab.models.batchnorm import NormStatistics, norms_of
from reslab.runtime.device import Processes, SingleProcess
from reslab.training.optim import set_learning_rate
from reslab.training.schedule import Schedule
from reslab.training.task import Task

# Change a net by one step, for the draws of a mini-batch and a learning rate; afterwards weights,
# momentum and moving averages are those after the step. Returns a table with one row for each
# virtual GPU of all processes, float64 [virtual GPUs, statistics + 2]: the batch-norm statistics
# of its forward pass, its mean loss, its error in percent. Every way to compute is one of these.
Update = Callable[[Any, float], Tensor]
LOSS, ERROR = -2, -1  # columns of the table; the statistics come before them


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
        with statistics.of_passes() as momentum:
            rows = [backward(share, len(shares) * processes.count) for share in shares]
        gradients.reduce()
        optimizer.step()
        optimizer.zero_grad()
        table = processes.all_gather(torch.stack(rows))
        for row in table:
            averages.lerp_(row[:LOSS], momentum)
        foreign_passes = len(table) - len(shares)  # forward passes that other processes made
        statistics.keep(averages, foreign_passes)
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
