"""The one update path: a mini-batch split over virtual GPUs, then one step of the optimizer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reslab.data.loader import Draws
from reslab.models.batchnorm import NormStatistics, trained_norms
from reslab.runtime.device import Processes, SingleProcess
from reslab.training.optimizer import Optimizer, Stepper
from reslab.training.schedule import Schedule
from reslab.training.task import Task

# Take one step, given the random draws of a mini-batch and a learning rate: update weights,
# optimizer state and moving averages. Return a table with one row per virtual GPU of all processes,
# float64 [virtual GPUs, statistics + 2]: the batch-norm statistics of its forward pass, its mean
# loss, its error in percent. Alternative implementations of the step share this signature.
Update = Callable[[Any, float], Tensor]
# An update at the optimizer's current rate: from the draws of a mini-batch to the same table.
Step = Callable[[Any], Tensor]
# Return this process's shares of the mini-batch with the given draws, one per virtual GPU.
Prepare = Callable[[Any], Sequence[Any]]
# Look at a network between backward and step, when `.grad` holds the gradient of the mean loss over
# all shares. The number is the update's, counted from 1 as in the log.
Observer = Callable[[int, nn.Module], None]
# Run forward and backward of this process's shares, given the number of shares of all processes.
# Yield each share's row of the table, in order, once its gradients are added to `.grad`. At the
# end, the batch norms have counted these passes; their running statistics are replaced afterwards.
Passes = Callable[[Sequence[Any], int], Iterable[Tensor]]
LOSS, ERROR = -2, -1  # columns of the table, after the statistics


@dataclass(frozen=True)
class UpdateResult:
    """The outcome of one update. Loss and error stay on the device until they are read."""

    iteration: int  # updates made so far, including this one
    learning_rate: float
    means: Tensor  # of the augmented mini-batch: loss, and error in percent, [2]
    warmed_up: bool  # whether the warm-up ended with this update

    @property
    def loss(self) -> Tensor:
        return self.means[0]

    @property
    def train_error(self) -> Tensor:
        return self.means[1]


def training_steps(
    update: Update, draws: Callable[[int], Any], schedule: Schedule, iterations: Iterable[int]
) -> Iterator[UpdateResult]:
    """Yield the result of one update per entry of `iterations`, counted from 0.

    The schedule sets the learning rate; `draws(k)` returns the random draws of mini-batch k.
    """
    for iteration in iterations:
        learning_rate = schedule.rate(iteration)
        table = update(draws(iteration), learning_rate)
        means = table[:, LOSS:].float().mean(0)
        warmed_up = schedule.observe_training(iteration + 1, means[1])
        yield UpdateResult(iteration + 1, learning_rate, means, warmed_up)


def eager_update(
    prepare: Prepare,
    loss: Callable[[Any], tuple[Tensor, Tensor]],
    optimizer: Optimizer,
    norms: Sequence[nn.BatchNorm2d] = (),
    processes: Processes = SingleProcess(),
    observe: Callable[[Any], None] = lambda draws: None,
) -> Update:
    """Return an update that runs forward and backward share by share in eager PyTorch.

    The arguments are those of `eager_step`.
    """
    step = eager_step(prepare, loss, optimizer, norms, processes, observe)
    return at_rate(step, optimizer.set_rate)


def at_rate(step: Step, set_rate: Callable[[float], None]) -> Update:
    """Return an update that sets the learning rate, then takes the step."""

    def update(draws: Any, learning_rate: float) -> Tensor:
        set_rate(learning_rate)
        return step(draws)

    return update


def eager_step(
    prepare: Prepare,
    loss: Callable[[Any], tuple[Tensor, Tensor]],
    optimizer: Stepper,
    norms: Sequence[nn.BatchNorm2d] = (),
    processes: Processes = SingleProcess(),
    observe: Callable[[Any], None] = lambda draws: None,
) -> Step:
    """Return an update at the optimizer's current learning rate, one share after the other.

    `loss(share)` returns mean loss and error in percent; the other arguments are those of
    `step_with`.
    """
    statistics = NormStatistics(norms, optimizer.parameters[0].device)

    def passes(shares: Sequence[Any], count: int) -> Iterator[Tensor]:
        for share in shares:
            yield backward(loss, share, count, statistics)

    return step_with(passes, prepare, optimizer, statistics, processes, observe)


def backward(
    loss: Callable[[Any], tuple[Tensor, Tensor]],
    share: Any,
    count: int,
    statistics: NormStatistics,
) -> Tensor:
    """Add the gradients of one of `count` shares and return its row of the table."""
    share_loss, error = loss(share)
    (share_loss / count).backward()
    facts = torch.stack([share_loss.detach().double(), error.double()])
    return torch.cat([statistics.row(), facts])


def step_with(
    passes: Passes,
    prepare: Prepare,
    optimizer: Stepper,
    statistics: NormStatistics,
    processes: Processes = SingleProcess(),
    observe: Callable[[Any], None] = lambda draws: None,
) -> Step:
    """Return an update at the optimizer's current learning rate.

    A share is the part of a mini-batch for one virtual GPU. `prepare(draws)` returns this process's
    shares, one per virtual GPU and all of equal size. Every share has its own forward pass, and so
    its own batch-norm statistics. Gradients, statistics, losses and errors are summed in the order
    of the shares, whichever process computed them, so the sums agree to the last bit for any number
    of processes. `observe` is called with the draws once the gradients are summed, before the step.
    """
    gradients = processes.gradients(optimizer.parameters)

    def step(draws: Any) -> Tensor:
        shares = prepare(draws)
        averages = statistics.row()
        rows = []
        with statistics.without_averaging() as momentum:
            for row in passes(shares, len(shares) * processes.count):
                gradients.store()
                rows.append(row)
        gradients.reduce()
        observe(draws)
        optimizer.step()
        optimizer.zero_grad()
        table = processes.all_gather(torch.stack(rows))
        for row in table:
            averages.lerp_(row[:LOSS], momentum)
        foreign_passes = len(table) - len(shares)  # forward passes made by other processes
        statistics.write(averages, foreign_passes)
        return table

    return step


def eager_update_of(
    task: Task,
    prepare: Prepare | None = None,
    observer: Observer | None = None,
) -> Update:
    """Return the eager update for a task; batch norm in evaluation mode is left unchanged."""

    def observe(draws: Draws) -> None:
        if observer is not None:
            observer(draws.iteration + 1, task.net)

    return eager_update(
        prepare or task.prepare,
        task.loss,
        task.optimizer,
        trained_norms(task.net),
        task.device.processes,
        observe,
    )
