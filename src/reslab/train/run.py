"""A run from its folder to its result: log, evaluate, checkpoint, resume, finish."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reslab.models.batchnorm import norms_of
from reslab.models.weights import sha256_of
from reslab.train.checkpoint import Checkpoint, newest_checkpoint
from reslab.train.folder import RunFolder
from reslab.train.loop import Step, training_steps
from reslab.train.optim import momentum_buffers, restore_momentum
from reslab.train.progress import (
    Progress,
    Row,
    Timer,
    eval_row,
    note,
    short,
    train_row,
    warmup_row,
)
from reslab.train.recipe import RunRecipe
from reslab.train.saving import Saver
from reslab.train.schedule import Schedule, ScheduleState
from reslab.world import Alone, Processes

Tell = Callable[[Row], None]
Stop = Callable[[], int | None]


class Interrupted(Exception):
    """The run was asked to stop, and stopped after saving."""

    def __init__(self, signal: int, folder: Path, iteration: int) -> None:
        super().__init__(f"stopped at iteration {iteration}, saved; `reslab resume {folder}`")
        self.signal, self.iteration = signal, iteration


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
    evaluate: Callable[[], list[Row]]  # on the way, with moving statistics; there may be none
    error_of: Callable[[Row], float]  # of a report, percent; a plateau shows in the first one's
    # after training: final statistics and final reports; calls its argument now and then
    finish: Callable[[Callable[[], None]], Final]
    model_file: Callable[[list[Row]], bytes]  # the model with its reports
    processes: Processes = field(default_factory=Alone)  # that the run is made by


def run(
    recipe: RunRecipe,
    parts: Parts,
    folder: RunFolder,
    *,
    tell: Tell,
    stop: Stop,
    clock: Callable[[], float] = time.monotonic,
) -> Row:
    """Train from the newest checkpoint, or from nothing, to `result.json`, whose value it returns.

    `tell` hears every line of the log, and notes. `stop` is asked after every update: a signal's
    number saves a checkpoint and raises Interrupted. Diverged leaves the last good checkpoint.
    """
    processes = parts.processes
    progress = Progress(parts.epoch)
    found = processes.from_first(
        lambda: newest_checkpoint(folder.checkpoints, lambda text: tell(note(text)))
    )
    if found:
        restore(found, parts, progress)
        tell(note(f"going on from iteration {found.iteration}"))
    start = found.iteration if found else 0
    schedule = Schedule(recipe, found.schedule if found else ScheduleState())
    folder.forget_after(start, recipe.iterations)
    timer = Timer(clock, found.seconds if found else 0.0)
    steps = training_steps(
        parts.loss_of, parts.shares_of, parts.optimizer, schedule, range(start, recipe.iterations),
        norms=[norm for norm in norms_of(parts.net) if norm.training], processes=processes,
    )  # fmt: skip
    with closing(Saver(folder, lambda text: tell(note(text)), start)) as saver:
        for step in steps:
            progress.add(step)
            timer.pictures += recipe.batch_size
            rows = rows_after(step, recipe, parts, schedule, progress, timer)
            saver.log(rows)
            for row in rows:
                tell(row)
            signal = stop()
            last = step.iteration == recipe.iterations
            if step.iteration % recipe.checkpoint_every == 0 or last or signal:
                progress.read()
                now = snapshot(parts, progress, step.iteration, schedule.state, timer.seconds())
                saver.save(now) if signal else saver.begin(now)
            if signal:
                processes.agree(0)  # none ends before it is saved: a launcher ends the others then
                raise Interrupted(signal, folder.path, step.iteration)
        seconds = timer.seconds()

        def beat() -> None:  # no update comes any more: it is safe to stop anywhere
            if signal := stop():
                saver.close()
                saved = processes.from_first(lambda: saver.saved)
                raise Interrupted(signal, folder.path, saved)

        return finish(recipe, parts, folder, progress, seconds, tell, beat)


def rows_after(
    step: Step,
    recipe: RunRecipe,
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
        if reports:
            schedule.evaluated(parts.error_of(reports[0]))
        rows += [eval_row(step.iteration, report) for report in reports]
        timer.restart()
    return rows


def finish(
    recipe: RunRecipe,
    parts: Parts,
    folder: RunFolder,
    progress: Progress,
    seconds: float,
    tell: Tell,
    beat: Callable[[], None],
) -> Row:
    """Final statistics, final reports, the model, its curves, and last of all the result."""
    final = parts.finish(beat)
    rows = [eval_row(recipe.iterations, report) for report in final.reports]
    folder.log(rows)
    for row in rows:
        tell(row)
    return parts.processes.from_first(
        lambda: write_result(recipe, parts, folder, progress, seconds, final)
    )


def write_result(
    recipe: RunRecipe,
    parts: Parts,
    folder: RunFolder,
    progress: Progress,
    seconds: float,
    final: Final,
) -> Row:
    """All that a finished run leaves in its folder."""
    from reslab.train.curves import draw_curves

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
