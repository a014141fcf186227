"""What a run has shown lately, and the lines of its log."""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reslab.train.loop import Step
from reslab.train.schedule import Schedule

Row = dict[str, Any]
DETAILS = ("per_class", "confusion")  # of a final report; the log holds one line an evaluation


class Diverged(RuntimeError):
    """A loss that is not finite."""


class Progress:
    """Loss and error of the last iterations: read from the device as seldom as possible."""

    def __init__(self, epoch: int) -> None:
        self.unread: list[tuple[int, Tensor, Tensor]] = []  # iteration, loss, error
        self.losses: list[float] = []  # since the last line of the log
        self.errors: deque[float] = deque(maxlen=epoch)

    def add(self, step: Step) -> None:
        self.unread.append((step.iteration, step.loss, step.train_error))

    def read(self) -> None:
        """Fetch what is unread; Diverged names the first iteration whose loss is not finite."""
        if not self.unread:
            return
        values = torch.stack([torch.stack((loss, error)) for _, loss, error in self.unread])
        for (iteration, _, _), (loss, error) in zip(self.unread, values.tolist(), strict=True):
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss} at iteration {iteration}")
            self.losses.append(loss)
            self.errors.append(error)
        self.unread.clear()

    def line(self) -> tuple[float, float]:
        """Mean loss and mean error since the last line, which this one ends."""
        self.read()
        count = len(self.losses)
        loss = sum(self.losses) / count
        error = sum(list(self.errors)[-count:]) / min(count, len(self.errors))
        self.losses.clear()
        return loss, error

    def epoch_error(self) -> float:
        """The mean training error of the last epoch, percent."""
        self.read()
        return sum(self.errors) / len(self.errors)


class Timer:
    """Seconds of training, those before a resume included, and the speed between two lines."""

    def __init__(self, clock: Callable[[], float], before: float) -> None:
        self.clock, self.before = clock, before
        self.begun = self.logged = clock()
        self.pictures = 0  # since the last line

    def seconds(self) -> float:
        return self.before + self.clock() - self.begun

    def speed(self) -> float:
        """Pictures a second since the last line."""
        return self.pictures / (self.clock() - self.logged)

    def restart(self) -> None:
        """A line was written, or something else than training took time."""
        self.logged, self.pictures = self.clock(), 0


def note(text: str) -> Row:
    return {"kind": "note", "text": text}


def warmup_row(step: Step, schedule: Schedule) -> Row:
    how = "cap" if schedule.state.warmup.capped else "train_error"
    return {"kind": "warmup", "iteration": step.iteration, "ended_by": how}


def train_row(step: Step, progress: Progress, images_per_second: float) -> Row:
    loss, error = progress.line()
    return {
        "kind": "train",
        "iteration": step.iteration,
        "learning_rate": step.learning_rate,
        "loss": loss,
        "train_error": error,
        "images_per_second": round(images_per_second, 1),
    }


def eval_row(iteration: int, report: Row) -> Row:
    return {"kind": "eval", "iteration": iteration, **short(report)}


def short(report: Row) -> Row:
    """A report without its details."""
    return {key: value for key, value in report.items() if key not in DETAILS}
