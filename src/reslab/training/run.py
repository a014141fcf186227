"""A run from its folder to its result: log, evaluate, checkpoint, resume, finish."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reslab.models.batchnorm import norms_of
from reslab.runtime.device import Processes, SingleProcess
from reslab.runtime.events import Callback, Event, note
from reslab.runtime.files import sha256_of
from reslab.training.checkpoint import Checkpoint, recover_newest_checkpoint
from reslab.training.folder import RunFolder
from reslab.training.log import (
    CheckpointWriter,
    Progress,
    Timer,
    eval_row,
    train_row,
    warmup_row,
    without_details,
)
from reslab.training.loop import Update, updates
from reslab.training.optim import momentum_buffers, restore_momentum
from reslab.training.recipe import RunRecipe
from reslab.training.schedule import Schedule, ScheduleState

Stop = Callable[[], int | None]


class Interrupted(Exception):
    """The run was asked to stop, and stopped after saving."""

    def __init__(self, signal: int, folder: Path, iteration: int) -> None:
        super().__init__(f"stopped at iteration {iteration}, saved; `reslab resume {folder}`")
        self.signal, self.iteration = signal, iteration


@dataclass(frozen=True)
class FinalReports:
    """What a run ends with."""

    reports: list[Event]  # in full
    files: dict[str, bytes]  # for the run folder, by name


@dataclass(frozen=True)
class Task:
    """What the run is made of; classification and detection differ in these alone."""

    net: nn.Module
    optimizer: torch.optim.SGD
    epoch: int  # iterations of one
    loss_of: Callable[[Any], tuple[Tensor, Tensor]]
    shares_of: Callable[[int], Sequence[Any]]
    # on the way, with moving statistics, there may be none; calls its argument now and then
    evaluate: Callable[[Callable[[], None]], list[Event]]
    error_of: Callable[[Event], float]  # of a report, percent; a plateau shows in the first one's
    # after training: final statistics and final reports; calls its argument now and then
    finish: Callable[[Callable[[], None]], FinalReports]
    model_file: Callable[[list[Event]], bytes]  # the model with its reports
    processes: Processes = field(default_factory=SingleProcess)  # that the run is made by


def run_task(
    recipe: RunRecipe,
    parts: Task,
    folder: RunFolder,
    *,
    on_event: Callback,
    stop: Stop,
    clock: Callable[[], float] = time.monotonic,
) -> Event:
    """Train from the newest checkpoint, or from nothing, to `result.json`, whose value it returns.

    `tell` hears every line of the log, and notes. `stop` is asked after every update and during
    evaluation: a signal's number saves a checkpoint and raises Interrupted. Diverged leaves the
    last good checkpoint.
    """

    def log(text: str) -> None:
        on_event(note(text))

    found = parts.processes.run_on_first(lambda: recover_newest_checkpoint(folder.checkpoints, log))
    start = found.iteration if found else 0
    # evaluations at the last iteration follow its checkpoint
    judged = start if found and found.judged and start < recipe.iterations else start - 1
    folder.forget_after(start, judged)
    with CheckpointWriter(folder, log, saved=start) as saver:
        it = RunInProgress(
            recipe, parts, folder,
            progress=Progress(parts.epoch),
            schedule=Schedule(recipe, found.schedule if found else ScheduleState()),
            timer=Timer(clock, found.seconds if found else 0.0),
            saver=saver, on_event=on_event, stop=stop,
        )  # fmt: skip
        if found:
            it.restore(found)
            log(f"going on from iteration {start}")
            if not found.judged:
                it.evaluate(start)
        it.train_from(start)
        return it.finish(it.timer.seconds())


@dataclass(frozen=True)
class RunInProgress:
    """A run that goes on."""

    recipe: RunRecipe
    parts: Task
    folder: RunFolder
    progress: Progress
    schedule: Schedule
    timer: Timer
    saver: CheckpointWriter
    on_event: Callback
    stop: Stop

    def restore(self, found: Checkpoint) -> None:
        """Put a checkpoint's state into the parts."""
        parts = self.parts
        parts.net.load_state_dict(found.weights)
        restore_momentum(parts.net, parts.optimizer, found.momentum, found.learning_rate)
        self.progress.losses.extend(found.losses.tolist())
        self.progress.errors.extend(found.errors.tolist())

    def snapshot(self, iteration: int, judged: bool = True) -> Checkpoint:
        """The state after `iteration` updates."""
        self.progress.read()
        parts = self.parts
        return Checkpoint(
            iteration=iteration,
            learning_rate=parts.optimizer.param_groups[0]["lr"],
            seconds=self.timer.seconds(),
            schedule=self.schedule.state,
            weights=parts.net.state_dict(),
            momentum=momentum_buffers(parts.net, parts.optimizer),
            losses=torch.tensor(self.progress.losses, dtype=torch.float64),
            errors=torch.tensor(self.progress.errors, dtype=torch.float64),
            judged=judged,
        )

    def train_from(self, start: int) -> None:
        """Every update from iteration `start` on, with what is logged and saved after each."""
        recipe, parts = self.recipe, self.parts
        steps = updates(
            parts.loss_of, parts.shares_of, parts.optimizer, self.schedule,
            range(start, recipe.iterations), processes=parts.processes,
            norms=[norm for norm in norms_of(parts.net) if norm.training],
        )  # fmt: skip
        for step in steps:
            self.progress.add(step)
            self.timer.images += recipe.batch_size
            self.write(self.rows_after(step))
            last = step.iteration == recipe.iterations
            judged = last or step.iteration % recipe.eval_every != 0
            self.save_and_stop_if_signalled(step.iteration, judged)
            if not judged:
                self.evaluate(step.iteration)
            if last or step.iteration % recipe.checkpoint_every == 0:
                self.saver.begin(self.snapshot(step.iteration), must=last)

    def rows_after(self, step: Update) -> list[Event]:
        """The lines that an update adds to the log."""
        rows = [warmup_row(step, self.schedule)] if step.warmed_up else []
        if step.iteration % self.recipe.log_every == 0 or step.iteration == self.recipe.iterations:
            rows.append(train_row(step, self.progress, self.timer.speed()))
            self.timer.restart()
        return rows

    def evaluate(self, iteration: int) -> None:
        """Evaluate on the way."""
        reports = self.parts.evaluate(
            lambda: self.save_and_stop_if_signalled(iteration, judged=False)
        )
        if reports:
            self.schedule.observe_evaluation(self.parts.error_of(reports[0]))
        self.write([eval_row(iteration, report) for report in reports])
        self.timer.restart()

    def write(self, rows: Sequence[Event]) -> None:
        self.saver.log(rows)
        for row in rows:
            self.on_event(row)

    def save_and_stop_if_signalled(self, iteration: int, judged: bool) -> None:
        """Save and end if a signal came; the state is that after `iteration` updates."""
        if signal := self.stop():
            self.saver.save(self.snapshot(iteration, judged))
            self.parts.processes.all_reduce_max(
                0
            )  # who ends before it is saved would end the others
            raise Interrupted(signal, self.folder.path, iteration)

    def stop_if_signalled(self) -> None:
        """No update comes any more: it is safe to stop anywhere."""
        if signal := self.stop():
            self.saver.close()
            saved = self.parts.processes.run_on_first(lambda: self.saver.saved)
            raise Interrupted(signal, self.folder.path, saved)

    def finish(self, seconds: float) -> Event:
        """Final statistics, final reports, the model, its curves, and last of all the result."""
        final = self.parts.finish(self.stop_if_signalled)
        rows = [eval_row(self.recipe.iterations, report) for report in final.reports]
        self.folder.log(rows)
        for row in rows:
            self.on_event(row)
        return self.parts.processes.run_on_first(lambda: self.write_result(final, seconds))

    def write_result(self, final: FinalReports, seconds: float) -> Event:
        """All that a finished run leaves in its folder."""
        from reslab.training.curves import draw_curves

        folder, parts, recipe = self.folder, self.parts, self.recipe
        weights = parts.net.state_dict()
        momentum = momentum_buffers(parts.net, parts.optimizer)
        result = {
            "weights_sha256": sha256_of(weights),
            "state_sha256": sha256_of(weights | {f"momentum.{n}": t for n, t in momentum.items()}),
            "iterations": recipe.iterations,
            "seconds": round(seconds, 2),
            "train_error": self.progress.epoch_error(),
            "evaluation": final.reports,
        }
        model = parts.model_file([without_details(report) for report in final.reports])
        folder.write("model.safetensors", model)
        for name, data in final.files.items():
            folder.write(name, data)
        folder.write("curves.svg", draw_curves(folder.rows(), recipe.name).encode())
        folder.write_json("result.json", result)
        return result
