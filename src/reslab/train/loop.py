"""The one update path: a mini-batch cut into virtual GPUs, then one step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reslab.train.optim import set_learning_rate
from reslab.train.schedule import Schedule


@dataclass(frozen=True)
class Step:
    """The facts of one update. Loss and error stay on the device until somebody reads them."""

    iteration: int  # updates done, this one included
    learning_rate: float
    loss: Tensor  # mean over the mini-batch, []
    train_error: Tensor  # percent of the augmented mini-batch, []
    warmed_up: bool  # whether the warm-up ended with this update


def training_steps(
    loss_of: Callable[[Any], tuple[Tensor, Tensor]],
    shares_of: Callable[[int], Sequence[Any]],
    optimizer: torch.optim.SGD,
    schedule: Schedule,
    iterations: Iterable[int],
) -> Iterator[Step]:
    """One update for each of `iterations`, counted from 0.

    `shares_of(k)` cuts mini-batch k into one equal share for each virtual GPU. `loss_of(share)`
    gives loss and error in percent, each a mean over the share. Every share has a forward of its
    own, so its own batch-norm statistics; gradients are averaged in the order of the shares.
    """
    for iteration in iterations:
        rate = schedule.rate(iteration)
        set_learning_rate(optimizer, rate)
        shares = shares_of(iteration)
        losses, errors = [], []
        for share in shares:
            loss, error = loss_of(share)
            (loss / len(shares)).backward()
            losses.append(loss.detach())
            errors.append(error)
        optimizer.step()
        optimizer.zero_grad()

        mean_loss, mean_error = torch.stack(losses).mean(), torch.stack(errors).mean()
        warmed_up = schedule.trained(iteration + 1, mean_error)
        yield Step(iteration + 1, rate, mean_loss, mean_error, warmed_up)
