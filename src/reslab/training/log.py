"""What a run has shown lately, and the lines of its log."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Self

import torch
from torch import Tensor

from reslab.errors import os_reason
from reslab.runtime.events import Event
from reslab.training.checkpoint import Checkpoint
from reslab.training.folder import RunFolder
from reslab.training.loop import UpdateResult
from reslab.training.schedule import Schedule

DETAILS = ("per_class", "confusion")  # of a final report; the log holds one line an evaluation


class Diverged(RuntimeError):
    """A loss that is not finite."""


class Progress:
    """Loss and error of the last iterations: read from the device as seldom as possible."""

    def __init__(self, epoch: int) -> None:
        self.unread: list[tuple[int, Tensor, Tensor]] = []  # iteration, loss, error
        self.losses: list[float] = []  # since the last line of the log
        self.errors: deque[float] = deque(maxlen=epoch)

    def add(self, step: UpdateResult) -> None:
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
        self.images = 0  # since the last line

    def seconds(self) -> float:
        return self.before + self.clock() - self.begun

    def speed(self) -> float:
        """Images a second since the last line."""
        return self.images / (self.clock() - self.logged)

    def restart(self) -> None:
        """A line was written, or something else than training took time."""
        self.logged, self.images = self.clock(), 0


def warmup_row(step: UpdateResult, schedule: Schedule) -> Event:
    how = "cap" if schedule.state.warmup.capped else "train_error"
    return {"kind": "warmup", "iteration": step.iteration, "ended_by": how}


def train_row(step: UpdateResult, progress: Progress, images_per_second: float) -> Event:
    loss, error = progress.line()
    return {
        "kind": "train",
        "iteration": step.iteration,
        "learning_rate": step.learning_rate,
        "loss": loss,
        "train_error": error,
        "images_per_second": round(images_per_second, 1),
    }


def eval_row(iteration: int, report: Event) -> Event:
    return {"kind": "eval", "iteration": iteration, **without_details(report)}


def without_details(report: Event) -> Event:
    """A report without its details."""
    return {key: value for key, value in report.items() if key not in DETAILS}


DISK_PATIENCE = 2.0  # seconds that training waits for a disk which is a whole checkpoint behind


class CheckpointWriter:
    """The log of a run, and its checkpoints, which a thread writes while training goes on.

    What a slow or full disk costs is told in a line, and the run goes on. Training waits for the
    copy of a checkpoint; for the disk only while the checkpoint before is still being written.
    """

    def __init__(
        self,
        folder: RunFolder,
        on_event: Callable[[str], None],
        saved: int,
        patience: float = DISK_PATIENCE,
    ) -> None:
        self.folder, self.on_event, self.patience = folder, on_event, patience
        self.saved = saved  # the iteration of the newest whole checkpoint
        self._begun: PendingWrite | None = None
        self._refused = False  # whether lines of the log are waiting

    def log(self, rows: Sequence[Event]) -> None:
        """Append lines to the log."""
        self._hear(0.0)
        if not rows:
            return
        try:
            self.folder.log(rows)
        except OSError as error:
            if not self._refused:
                self.on_event(f"{reason(error)}: {self.folder.metrics}; its lines wait for room")
            self._refused = True
        else:
            self._refused = False

    def begin(self, checkpoint: Checkpoint, *, must: bool = False) -> None:
        """Copy a checkpoint, and have it written; if it `must`, the disk is waited for."""
        if not self.folder.writes:
            return
        iteration = checkpoint.iteration
        self._hear(None if must else self.patience)
        if self._begun:
            late = self._begun.checkpoint.iteration
            self.on_event(
                f"no checkpoint at iteration {iteration}: the disk is busy with that of {late}"
            )
            return
        try:
            self.folder.log(())  # lines that wait: none is younger than a checkpoint
        except OSError as error:
            self._complain(iteration, error)
            return
        self._begun = PendingWrite(self.folder, checkpoint.copied())
        self._begun.start()

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint here and now; OSError if that cannot be."""
        self._hear(None)
        self.folder.log(())
        self.folder.save(checkpoint)
        self.saved = checkpoint.iteration

    def close(self) -> None:
        """Wait for what is being written."""
        self._hear(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, Exception):  # others end the process, at once
            self.close()

    def _hear(self, seconds: float | None) -> None:
        """What became of the checkpoint that was begun; wait for that so long at most."""
        if self._begun is None:
            return
        writing = self._begun
        writing.join(seconds)
        if writing.is_alive():
            return
        self._begun = None
        if writing.failure is None:
            self.saved = writing.checkpoint.iteration
        elif isinstance(writing.failure, OSError):
            self._complain(writing.checkpoint.iteration, writing.failure)
        else:
            raise writing.failure

    def _complain(self, iteration: int, error: OSError) -> None:
        last = f"that of iteration {self.saved} is kept" if self.saved else "none is kept yet"
        self.on_event(f"no checkpoint at iteration {iteration}: {reason(error)}; {last}")


class PendingWrite(Thread):
    """A checkpoint on its way to the disk; the end of the process does not wait for it."""

    def __init__(self, folder: RunFolder, checkpoint: Checkpoint) -> None:
        super().__init__(name="reslab-checkpoint", daemon=True)
        self.folder, self.checkpoint = folder, checkpoint
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            self.folder.save(self.checkpoint)
        except Exception as error:  # raised where the training is
            self.failure = error


def reason(error: OSError) -> str:
    return os_reason(error)
