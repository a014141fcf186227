"""A run from its folder to its result: log, evaluate, checkpoint, resume, finish."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reslab.models.weights import sha256_of
from reslab.train.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from reslab.train.folder import RunFolder
from reslab.train.loop import Step, training_steps
from reslab.train.optim import momentum_buffers, restore_momentum
from reslab.train.recipe import Recipe
from reslab.train.schedule import Schedule, ScheduleState

Row = dict[str, Any]
Tell = Callable[[Row], None]
DETAILS = ("per_class", "confusion")  # of a final report; the log holds one line an evaluation


class Interrupted(Exception):
    """The run was asked to stop, and stopped after saving."""

    def __init__(self, signal: int, folder: Path, iteration: int) -> None:
        super().__init__(f"stopped at iteration {iteration}, saved; `reslab resume {folder}`")
        self.signal = signal


class Diverged(RuntimeError):
    """A loss that is not finite."""


@dataclass(frozen=True)
class Final:
    """What a run ends with."""

    reports: list[Row]  # in full
    files: dict[str, bytes]  # for the run folder, by name


@dataclass(frozen=True)
class Parts:
    """What the run is made of; classification and detection differ in these alone."""

    net: nn.Module
    optimizer: torch.optim.SGD
    epoch: int  # iterations of one
    loss_of: Callable[[Any], tuple[Tensor, Tensor]]
    shares_of: Callable[[int], Sequence[Any]]
    evaluate: Callable[[], list[Row]]  # on the way, with moving statistics
    # after training: final statistics and final reports; calls its argument now and then
    finish: Callable[[Callable[[], None]], Final]
    model_file: Callable[[list[Row]], bytes]  # the model with its reports


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


def run(
    recipe: Recipe,
    parts: Parts,
    folder: RunFolder,
    *,
    tell: Tell,
    stop: Callable[[], int | None],
    clock: Callable[[], float] = time.monotonic,
) -> Row:
    """Train from the newest checkpoint, or from nothing, to `result.json`, whose value it returns.

    `tell` hears every line of the log, and notes. `stop` is asked after every update: a signal's
    number saves a checkpoint and raises Interrupted. Diverged leaves the last good checkpoint.
    """
    folder.checkpoints.mkdir(exist_ok=True)
    progress = Progress(parts.epoch)
    found = newest_checkpoint(folder.checkpoints, lambda text: tell(note(text)))
    if found:
        restore(found, parts, progress)
        tell(note(f"going on from iteration {found.iteration}"))
    start = found.iteration if found else 0
    schedule = Schedule(recipe, found.schedule if found else ScheduleState())
    folder.forget_after(start, recipe.iterations)
    timer = Timer(clock, found.seconds if found else 0.0)
    steps = training_steps(
        parts.loss_of, parts.shares_of, parts.optimizer, schedule, range(start, recipe.iterations)
    )
    for step in steps:
        progress.add(step)
        timer.pictures += recipe.batch_size
        rows = rows_after(step, recipe, parts, schedule, progress, timer)
        folder.log(rows)
        for row in rows:
            tell(row)
        signal = stop()
        last = step.iteration == recipe.iterations
        if step.iteration % recipe.checkpoint_every == 0 or last or signal:
            progress.read()
            folder.flush()
            now = snapshot(parts, progress, step.iteration, schedule.state, timer.seconds())
            save_checkpoint(folder.checkpoints, now)
        if signal:
            raise Interrupted(signal, folder.path, step.iteration)
    seconds = timer.seconds()

    def beat() -> None:  # all is saved: it is safe to stop anywhere
        if signal := stop():
            raise Interrupted(signal, folder.path, recipe.iterations)

    return finish(recipe, parts, folder, progress, seconds, tell, beat)


def rows_after(
    step: Step,
    recipe: Recipe,
    parts: Parts,
    schedule: Schedule,
    progress: Progress,
    timer: Timer,
) -> list[Row]:
    """The lines that an update adds to the log; evaluates where it is time."""
    rows: list[Row] = []
    last = step.iteration == recipe.iterations
    if step.warmed_up:
        rows.append(warmup_row(step, schedule))
    if step.iteration % recipe.log_every == 0 or last:
        rows.append(train_row(step, progress, timer.speed()))
        timer.restart()
    if step.iteration % recipe.eval_every == 0 and not last:
        reports = parts.evaluate()
        schedule.evaluated(reports[0]["top1_error"])
        rows += [eval_row(step.iteration, report) for report in reports]
        timer.restart()
    return rows


def finish(
    recipe: Recipe,
    parts: Parts,
    folder: RunFolder,
    progress: Progress,
    seconds: float,
    tell: Tell,
    beat: Callable[[], None],
) -> Row:
    """Final statistics, final reports, the model, its curves, and last of all the result."""
    from reslab.train.curves import draw_curves

    final = parts.finish(beat)
    rows = [eval_row(recipe.iterations, report) for report in final.reports]
    folder.log(rows)
    for row in rows:
        tell(row)
    weights = parts.net.state_dict()
    momentum = momentum_buffers(parts.net, parts.optimizer)
    result = {
        "weights_sha256": sha256_of(weights),
        "state_sha256": sha256_of(weights | {f"momentum.{n}": t for n, t in momentum.items()}),
        "iterations": recipe.iterations,
        "seconds": round(seconds, 2),
        "train_error": progress.epoch_error(),
        "evaluation": final.reports,
    }
    folder.write("model.safetensors", parts.model_file([short(report) for report in final.reports]))
    for name, data in final.files.items():
        folder.write(name, data)
    folder.write("curves.svg", draw_curves(folder.rows(), recipe.name).encode())
    folder.write_json("result.json", result)
    return result


def snapshot(
    parts: Parts, progress: Progress, iteration: int, schedule: ScheduleState, seconds: float
) -> Checkpoint:
    """The state after `iteration` updates."""
    return Checkpoint(
        iteration=iteration,
        learning_rate=parts.optimizer.param_groups[0]["lr"],
        seconds=seconds,
        schedule=schedule,
        weights=parts.net.state_dict(),
        momentum=momentum_buffers(parts.net, parts.optimizer),
        losses=torch.tensor(progress.losses, dtype=torch.float64),
        errors=torch.tensor(progress.errors, dtype=torch.float64),
    )


def restore(found: Checkpoint, parts: Parts, progress: Progress) -> None:
    """Put a checkpoint's state into the parts."""
    parts.net.load_state_dict(found.weights)
    restore_momentum(parts.net, parts.optimizer, found.momentum, found.learning_rate)
    progress.losses.extend(found.losses.tolist())
    progress.errors.extend(found.errors.tolist())


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
