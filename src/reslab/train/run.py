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
from reslab.train.schedule import WarmupState

Row = dict[str, Any]
Tell = Callable[[Row], None]


class Interrupted(Exception):
    """The run was asked to stop, and stopped after saving."""

    def __init__(self, signal: int, folder: Path, iteration: int) -> None:
        super().__init__(f"stopped at iteration {iteration}, saved; `reslab resume {folder}`")
        self.signal = signal


class Diverged(RuntimeError):
    """A loss that is not finite."""


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
    finish: Callable[[Callable[[], None]], list[Row]]
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
    warmup = found.warmup if found else WarmupState()
    folder.forget_after(start, recipe.iterations)
    begun = logged = clock()
    seconds_before = found.seconds if found else 0.0

    def checkpoint(iteration: int) -> None:
        progress.read()
        seconds = seconds_before + clock() - begun
        folder.flush()
        state = snapshot(parts, progress, iteration, warmup, seconds)
        save_checkpoint(folder.checkpoints, state)

    pictures = 0
    steps = training_steps(
        parts.loss_of, parts.shares_of, parts.optimizer, recipe, start=start, warmup=warmup
    )
    for step in steps:
        rows: list[Row] = []
        progress.add(step)
        pictures += recipe.batch_size
        if step.warmup.ended_at == step.iteration:
            rows.append(warmup_row(recipe, step))
        warmup = step.warmup
        last = step.iteration == recipe.iterations
        if step.iteration % recipe.log_every == 0 or last:
            rows.append(train_row(step, progress, pictures / (clock() - logged)))
            logged, pictures = clock(), 0
        if step.iteration % recipe.eval_every == 0 and not last:
            rows += [eval_row(step.iteration, report) for report in parts.evaluate()]
            logged, pictures = clock(), 0
        folder.log(rows)
        for row in rows:
            tell(row)
        signal = stop()
        if step.iteration % recipe.checkpoint_every == 0 or last or signal:
            checkpoint(step.iteration)
        if signal:
            raise Interrupted(signal, folder.path, step.iteration)
    seconds = seconds_before + clock() - begun

    def beat() -> None:  # all is saved: it is safe to stop anywhere
        if signal := stop():
            raise Interrupted(signal, folder.path, recipe.iterations)

    return finish(recipe, parts, folder, progress, seconds, tell, beat)


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

    reports = parts.finish(beat)
    rows = [eval_row(recipe.iterations, report) for report in reports]
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
        "evaluation": reports,
    }
    folder.write("model.safetensors", parts.model_file(reports))
    folder.write("curves.svg", draw_curves(folder.rows(), recipe.name).encode())
    folder.write_json("result.json", result)
    return result


def snapshot(
    parts: Parts, progress: Progress, iteration: int, warmup: WarmupState, seconds: float
) -> Checkpoint:
    """The state after `iteration` updates."""
    return Checkpoint(
        iteration=iteration,
        learning_rate=parts.optimizer.param_groups[0]["lr"],
        seconds=seconds,
        warmup=warmup,
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


def warmup_row(recipe: Recipe, step: Step) -> Row:
    assert recipe.warmup is not None
    how = "cap" if step.warmup.capped else "train_error"
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
    return {"kind": "eval", "iteration": iteration, **report}
