"""A run's log lines, the progress they report, and the thread that writes its checkpoints."""

import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Self

import torch

from reslab.errors import os_reason
from reslab.runtime.events import Event, Log
from reslab.training.checkpoint import Checkpoint, checkpoint_name
from reslab.training.folder import RunFolder
from reslab.training.loop import UpdateResult
from reslab.training.recipe import RunRecipe
from reslab.training.schedule import Schedule

DETAILS = ("per_class", "confusion")  # in final reports only; left out of the log
DISK_PATIENCE = 2.0  # seconds that training waits for the previous checkpoint's write


# what to try after a run has diverged
LOWER_RATE = (
    "train again into a new folder with a lower learning_rate, such as a tenth, or with a warm-up"
)


class Diverged(RuntimeError):
    """The loss is no longer finite."""


def must_be_finite(result: Event, folder: Path, recipe: RunRecipe) -> None:
    """Raise Diverged if a finished run's loss on any set is infinite or NaN (null in its result).

    The folder is complete, so that the run can be inspected.
    """
    for report in result["evaluation"]:
        loss = report.get("loss", 0.0)
        if loss is None or not math.isfinite(loss):
            raise Diverged(
                f"{folder}: the loss on {report['set']} is infinite or NaN after iteration "
                f"{recipe.iterations}, with the learning rate {recipe.learning_rate:g}: "
                f"the weights are unusable; {LOWER_RATE}"
            )


class Progress:
    """Loss, error and speed over the last iterations, and the total training time.

    Loss and error are read from the device as seldom as possible, since a read waits for it.
    """

    def __init__(self, epoch: int, clock: Callable[[], float], before_resume: float) -> None:
        self.unread: list[UpdateResult] = []
        self.losses: list[float] = []  # since the last log line
        self.errors: deque[float] = deque(maxlen=epoch)
        self.clock, self.before_resume = clock, before_resume
        self.started = self.logged = clock()
        self.images = 0  # since the last log line

    def add(self, step: UpdateResult, images: int) -> None:
        self.unread.append(step)
        self.images += images

    def read(self) -> None:
        """Fetch unread losses and errors; raise Diverged at the first loss that is not finite."""
        if not self.unread:
            return
        values = torch.stack([step.means for step in self.unread])
        for step, (loss, error) in zip(self.unread, values.tolist(), strict=True):
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss is {loss} at iteration {step.iteration}, where the learning rate "
                    f"is {step.learning_rate:g}; {LOWER_RATE}"
                )
            self.losses.append(loss)
            self.errors.append(error)
        self.unread.clear()

    def take_means(self) -> tuple[float, float]:
        """Return the mean loss and mean error since the last call."""
        self.read()
        count = len(self.losses)
        loss = sum(self.losses) / count
        error = sum(list(self.errors)[-count:]) / min(count, len(self.errors))
        self.losses.clear()
        return loss, error

    def epoch_error(self) -> float:
        """Return the mean training error over the last epoch, in percent."""
        self.read()
        return sum(self.errors) / len(self.errors)

    def seconds(self) -> float:
        """Return the total training time in seconds, including the time before a resume."""
        return self.before_resume + self.clock() - self.started

    def speed(self) -> float:
        """Return images per second since the last log line."""
        return self.images / (self.clock() - self.logged)

    def restart_timing(self) -> None:
        """Restart the speed measurement, after a log line or after time not spent training."""
        self.logged, self.images = self.clock(), 0


def warmup_row(step: UpdateResult, schedule: Schedule) -> Event:
    how = "cap" if schedule.state.warmup.capped else "train_error"
    return {"kind": "warmup", "iteration": step.iteration, "ended_by": how}


def train_row(step: UpdateResult, progress: Progress) -> Event:
    speed = progress.speed()  # measured before waiting for the device
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
    """Return a report without its per-class numbers and confusion matrix."""
    return {key: value for key, value in report.items() if key not in DETAILS}


class CheckpointWriter:
    """Write a run's log, and write its checkpoints in a thread while training continues.

    A slow or full disk is reported to the user in one line, and the run continues. Training waits
    while a checkpoint is copied to memory, and for the disk only while the previous checkpoint is
    still being written.
    """

    def __init__(
        self,
        folder: RunFolder,
        notify: Log,
        saved: int,
        keep_every: int | None = None,
        patience: float = DISK_PATIENCE,
    ) -> None:
        self.folder, self.notify, self.patience = folder, notify, patience
        self.keep_every = keep_every  # checkpoints at its multiples are never deleted
        self.saved = saved  # iteration of the newest complete checkpoint
        self._writing: Thread | None = None  # is writing the checkpoint of iteration `_pending`
        self._pending = 0
        self._failure: Exception | None = None  # from the thread, to be re-raised
        self._rows_wait = False  # whether the last log lines could not be written

    def log(self, rows: Sequence[Event]) -> None:
        """Append lines to the log; lines that cannot be written are retried by the next call."""
        self._collect_finished_write(0.0)
        if not rows:
            return
        try:
            self.folder.log(rows)
        except OSError as error:
            if not self._rows_wait:
                self.notify(
                    f"{os_reason(error)}: {self.folder.metrics}; its lines are written when there "
                    "is space"
                )
            self._rows_wait = True
        else:
            self._rows_wait = False

    def begin(self, checkpoint: Checkpoint, *, wait: bool = False) -> None:
        """Copy a checkpoint and start writing it; skip it if the disk is busy, unless `wait`."""
        if not self.folder.writes:
            return
        iteration = checkpoint.iteration
        self._collect_finished_write(None if wait else self.patience)
        if self._writing:
            self.notify(
                f"no checkpoint at iteration {iteration}: the disk is still writing that of "
                f"{self._pending}"
            )
            return
        try:
            self.folder.log(())  # pending lines first: a checkpoint must not outlive them
        except OSError as error:
            self._report_unsaved(iteration, error)
            return
        self._pending, self._failure = iteration, None
        # a daemon, so that the process can exit without waiting for the disk
        self._writing = Thread(target=self._write, args=(checkpoint.copied(),), daemon=True)
        self._writing.start()

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            self.folder.save(checkpoint, self.keep_every)
        except Exception as error:
            self._failure = error

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint before returning; raise OSError if that fails."""
        self._collect_finished_write(None)
        self.folder.log(())
        self.folder.save(checkpoint, self.keep_every)
        self.saved = checkpoint.iteration

    def close(self) -> None:
        """Wait until the pending checkpoint is written, or its write has failed."""
        self._collect_finished_write(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, Exception):  # KeyboardInterrupt does not wait
            self.close()

    def _collect_finished_write(self, timeout: float | None) -> None:
        """Wait up to `timeout` seconds for the pending write; record its outcome if it ended."""
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
        kept = os.path.exists(self.folder.checkpoints / checkpoint_name(self.saved))
        last = f"that of iteration {self.saved} is kept" if kept else "none is kept yet"
        self.notify(f"no checkpoint at iteration {iteration}: {os_reason(error)}; {last}")
