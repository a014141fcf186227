"""The lines of a run's log, what they report, and the thread that writes its checkpoints."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Self

import torch
from torch import Tensor

from reslab.errors import os_reason
from reslab.runtime.events import Event, Log
from reslab.training.checkpoint import Checkpoint
from reslab.training.folder import RunFolder
from reslab.training.loop import UpdateResult
from reslab.training.schedule import Schedule

DETAILS = ("per_class", "confusion")  # of a final report; the log leaves them out
DISK_PATIENCE = 2.0  # seconds that training waits for a disk which is a whole checkpoint behind


class Diverged(RuntimeError):
    """The loss is no longer finite."""


class Progress:
    """Loss, error and speed of the last iterations, and the seconds of all.

    Loss and error are read from the device as seldom as possible.
    """

    def __init__(self, epoch: int, clock: Callable[[], float], before_resume: float) -> None:
        self.unread: list[tuple[int, Tensor, Tensor]] = []  # iteration, loss, error
        self.losses: list[float] = []  # since the last line of the log
        self.errors: deque[float] = deque(maxlen=epoch)
        self.clock, self.before_resume = clock, before_resume
        self.started = self.logged = clock()
        self.images = 0  # since the last line

    def add(self, step: UpdateResult, images: int) -> None:
        self.unread.append((step.iteration, step.loss, step.train_error))
        self.images += images

    def read(self) -> None:
        """Fetch what is unread; Diverged at the first iteration whose loss is not finite."""
        if not self.unread:
            return
        values = torch.stack([torch.stack((loss, error)) for _, loss, error in self.unread])
        for (iteration, _, _), (loss, error) in zip(self.unread, values.tolist(), strict=True):
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss} at iteration {iteration}")
            self.losses.append(loss)
            self.errors.append(error)
        self.unread.clear()

    def take_means(self) -> tuple[float, float]:
        """Return mean loss and mean error since the last call."""
        self.read()
        count = len(self.losses)
        loss = sum(self.losses) / count
        error = sum(list(self.errors)[-count:]) / min(count, len(self.errors))
        self.losses.clear()
        return loss, error

    def epoch_error(self) -> float:
        """Return the mean training error of the last epoch, percent."""
        self.read()
        return sum(self.errors) / len(self.errors)

    def seconds(self) -> float:
        """Return the seconds of training, those before a resume included."""
        return self.before_resume + self.clock() - self.started

    def speed(self) -> float:
        """Return images a second since the last line."""
        return self.images / (self.clock() - self.logged)

    def restart_timing(self) -> None:
        """Measure the speed anew, after a line or after time that was not spent training."""
        self.logged, self.images = self.clock(), 0


def warmup_row(step: UpdateResult, schedule: Schedule) -> Event:
    how = "cap" if schedule.state.warmup.capped else "train_error"
    return {"kind": "warmup", "iteration": step.iteration, "ended_by": how}


def train_row(step: UpdateResult, progress: Progress) -> Event:
    speed = progress.speed()  # before the device is waited for
    loss, error = progress.take_means()
    return {
        "kind": "train",
        "iteration": step.iteration,
        "learning_rate": step.learning_rate,
        "loss": loss,
        "train_error": error,
        "images_per_second": round(speed, 1),
    }


def eval_row(iteration: int, report: Event) -> Event:
    return {"kind": "eval", "iteration": iteration, **without_details(report)}


def without_details(report: Event) -> Event:
    """Return a report without its details."""
    return {key: value for key, value in report.items() if key not in DETAILS}


class CheckpointWriter:
    """Write a run's log, and its checkpoints by a thread while training goes on.

    A slow or full disk costs a line to the user, and the run goes on. Training waits while a
    checkpoint is copied; for the disk only while the checkpoint before is still being written.
    """

    def __init__(
        self, folder: RunFolder, notify: Log, saved: int, patience: float = DISK_PATIENCE
    ) -> None:
        self.folder, self.notify, self.patience = folder, notify, patience
        self.saved = saved  # the iteration of the newest whole checkpoint
        self._writing: Thread | None = None  # writes the checkpoint of the iteration `_pending`
        self._pending = 0
        self._failure: Exception | None = None  # of the thread, to be raised in training's
        self._rows_wait = False  # whether the disk refused the last lines of the log

    def log(self, rows: Sequence[Event]) -> None:
        """Append lines to the log; those that the disk refuses wait for the next call."""
        self._collect_finished_write(0.0)
        if not rows:
            return
        try:
            self.folder.log(rows)
        except OSError as error:
            if not self._rows_wait:
                self.notify(f"{os_reason(error)}: {self.folder.metrics}; its lines wait for room")
            self._rows_wait = True
        else:
            self._rows_wait = False

    def begin(self, checkpoint: Checkpoint, *, wait: bool = False) -> None:
        """Copy a checkpoint and start to write it; skip it if the disk is busy, unless `wait`."""
        if not self.folder.writes:
            return
        iteration = checkpoint.iteration
        self._collect_finished_write(None if wait else self.patience)
        if self._writing:
            self.notify(
                f"no checkpoint at iteration {iteration}: the disk is busy with that of "
                f"{self._pending}"
            )
            return
        try:
            self.folder.log(())  # lines that wait: none may be younger than a checkpoint
        except OSError as error:
            self._report_unsaved(iteration, error)
            return
        self._pending, self._failure = iteration, None
        # a daemon: the end of the process does not wait for the disk
        self._writing = Thread(target=self._write, args=(checkpoint.copied(),), daemon=True)
        self._writing.start()

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            self.folder.save(checkpoint)
        except Exception as error:
            self._failure = error

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint before returning; OSError if that fails."""
        self._collect_finished_write(None)
        self.folder.log(())
        self.folder.save(checkpoint)
        self.saved = checkpoint.iteration

    def close(self) -> None:
        """Wait for the checkpoint that is being written."""
        self._collect_finished_write(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, Exception):  # others end the process, at once
            self.close()

    def _collect_finished_write(self, timeout: float | None) -> None:
        """Take over the result of the pending write; wait for it up to `timeout` seconds."""
        if self._writing is None:
            return
        self._writing.join(timeout)
        if self._writing.is_alive():
            return
        self._writing = None
        if self._failure is None:
            self.saved = self._pending
        elif isinstance(self._failure, OSError):
            self._report_unsaved(self._pending, self._failure)
        else:
            raise self._failure

    def _report_unsaved(self, iteration: int, error: OSError) -> None:
        last = f"that of iteration {self.saved} is kept" if self.saved else "none is kept yet"
        self.notify(f"no checkpoint at iteration {iteration}: {os_reason(error)}; {last}")
