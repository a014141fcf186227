"""The one update path: a mini-batch cut into virtual GPUs, then one step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reslab.models.batchnorm import NormStatistics
from reslab.runtime.device import Processes, SingleProcess
from reslab.training.optim import set_learning_rate
from reslab.training.schedule import Schedule


@dataclass(frozen=True)
class Update:
    """The facts of one update. Loss and error stay on the device until somebody reads them."""

    iteration: int  # updates done, this one included
    learning_rate: float
    loss: Tensor  # mean over the mini-batch, []
    train_error: Tensor  # percent of the augmented mini-batch, []
    warmed_up: bool  # whether the warm-up ended with this update


def updates(
    loss_of: Callable[[Any], tuple[Tensor, Tensor]],
    shares_of: Callable[[int], Sequence[Any]],
    optimizer: torch.optim.SGD,
    schedule: Schedule,
    iterations: Iterable[int],
    norms: Sequence[nn.BatchNorm2d] = (),
    processes: Processes = SingleProcess(),
) -> Iterator[Update]:
    """One update for each of `iterations`, counted from 0.

    `shares_of(k)` cuts mini-batch k into one equal share for each virtual GPU, and gives those of
    this process. `loss_of(share)` gives loss and error in percent, each a mean over the share.
    Every share has a forward of its own, so its own batch-norm statistics, which move what `norms`
    keep. Gradients, statistics, losses and errors are taken in the order of the shares, whichever
    process had them, so that the sums are the same to the last bit.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    statistics = NormStatistics(norms, weights[0].device)
    gradients = processes.gradients(weights)
    for iteration in iterations:
        rate = schedule.rate(iteration)
        set_learning_rate(optimizer, rate)
        shares = shares_of(iteration)
        kept, rows = statistics.row(), []
        with statistics.of_passes() as momentum:
            for share in shares:
                loss, error = loss_of(share)
                (loss / (len(shares) * processes.count)).backward()
                gradients.store()
                rows.append(torch.cat([statistics.row(), as_row(loss, error)]))
        gradients.reduce()
        optimizer.step()
        optimizer.zero_grad()

        table = processes.all_gather(torch.stack(rows))  # [shares, statistics and two]
        for row in table:
            kept.lerp_(row[:-2], momentum)
        statistics.keep(kept, len(table) - len(shares))
        mean_loss = table[:, -2].to(loss.dtype).mean()
        mean_error = table[:, -1].to(error.dtype).mean()
        warmed_up = schedule.observe_training(iteration + 1, mean_error)
        yield Update(iteration + 1, rate, mean_loss, mean_error, warmed_up)


def as_row(loss: Tensor, error: Tensor) -> Tensor:
    """float64 [2]; either may be of another type."""
    return torch.stack([loss.detach().double(), error.double()])
