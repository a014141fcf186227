"""A run from start or resume to its result: train, log, evaluate, checkpoint, finish."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from reslab.errors import os_reason
from reslab.runtime.events import Callback, Event, Log, note
from reslab.runtime.files import sha256_of
from reslab.training.checkpoint import Checkpoint, checkpoint_name, is_kept
from reslab.training.engine import Engine, update_of
from reslab.training.folder import RunFolder
from reslab.training.log import (
    CheckpointWriter,
    Progress,
    eval_row,
    train_row,
    warmup_row,
    without_details,
)
from reslab.training.loop import Observer, UpdateResult, training_steps
from reslab.training.recipe import RunRecipe
from reslab.training.schedule import Schedule, ScheduleState
from reslab.training.task import Final, Task

CURVES = "curves.svg"
Stop = Callable[[], int | None]  # returns the number of the signal received, or None


class Interrupted(Exception):
    """The run was asked to stop, and stopped after saving a checkpoint."""

    def __init__(self, signal: int, resume: str, iteration: int) -> None:
        super().__init__(f"stopped at iteration {iteration}, saved; {resume}")
        self.signal, self.iteration = signal, iteration


def run_task(
    task: Task,
    folder: RunFolder,
    saved: Checkpoint | None,
    *,
    on_event: Callback,
    stop: Stop,
    observer: Observer | None = None,
    engine: Engine = Engine(),
    clock: Callable[[], float] = time.monotonic,
) -> Event:
    """Train from the checkpoint `saved`, or from the start, and return the run's result.

    `on_event` receives every log line, and notes. `stop` is called after every update and during
    evaluation; if it returns a signal number, a checkpoint is saved and Interrupted is raised.
    `observer` is called between backward and step of every update, by every process.
    Diverged is raised if the loss is not finite, and leaves the last good checkpoint.
    """

    def log(text: str) -> None:
        on_event(note(text))

    iterations = task.recipe.iterations
    start = saved.iteration if saved else 0
    # the final evaluations come after the checkpoint of the last iteration
    evaluated_until = start if saved and saved.evaluated and start < iterations else start - 1
    folder.forget_after(start, evaluated_until)
    with engine.memory(), CheckpointWriter(folder, log, start, task.recipe.keep_every) as writer:
        run = RunInProgress(
            task, folder,
            progress=Progress(task.epoch, clock, saved.seconds if saved else 0.0),
            schedule=Schedule(task.recipe, saved.schedule if saved else ScheduleState()),
            writer=writer, on_event=on_event, stop=stop, observer=observer,
            engine=engine,
        )  # fmt: skip
        if saved:
            run.restore(saved)
            log(f"resuming from iteration {start}")
            if not saved.evaluated:
                run.evaluate(start)
        elif task.recipe.deviations.net:  # a resumed run may be given other initial weights
            writer.begin(run.snapshot(0))
            writer.close()  # before the first update, so that these weights are never lost
        run.train_from(start)
        return run.finish(run.progress.seconds())


@dataclass
class RunInProgress:
    """A task being trained, with the state that every update advances."""

    task: Task
    folder: RunFolder
    progress: Progress
    schedule: Schedule
    writer: CheckpointWriter
    on_event: Callback
    stop: Stop
    observer: Observer | None
    engine: Engine

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint."""
        task = self.task
        try:
            task.net.load_state_dict(saved.weights)
            if saved.iteration:  # an optimizer that has made no step has nothing to restore
                task.optimizer.restore(saved.optimizer)
        except (KeyError, RuntimeError) as error:
            reason = str(error).split()
            file = self.folder.checkpoints / checkpoint_name(saved.iteration)
            raise ValueError(
                f"{file} does not fit the network or its optimizer: {' '.join(reason)[:300]}"
            ) from None
        self.progress.losses.extend(saved.losses.tolist())
        self.progress.errors.extend(saved.errors.tolist())

    def snapshot(self, iteration: int, *, evaluation_due: bool = False) -> Checkpoint:
        """Return the state after `iteration` updates."""
        self.progress.read()
        task = self.task
        return Checkpoint(
            iteration=iteration,
            seconds=self.progress.seconds(),
            schedule=self.schedule.state,
            weights=task.net.state_dict(),
            optimizer=task.optimizer.state(),
            losses=torch.tensor(self.progress.losses, dtype=torch.float64),
            errors=torch.tensor(self.progress.errors, dtype=torch.float64),
            evaluated=not evaluation_due,
        )

    def train_from(self, start: int) -> None:
        """Make all updates from iteration `start` on; log, evaluate and save whenever due."""
        recipe, task = self.recipe, self.task
        log: Log = lambda text: self.on_event(note(text))  # noqa: E731
        update = update_of(task, self.engine, self.observer, log)
        iterations = range(start, recipe.iterations)
        steps = training_steps(update, task.draws, self.schedule, iterations)
        for step in steps:
            self.progress.add(step, recipe.batch_size)
            self.write(self.rows_after(step))
            last = step.iteration == recipe.iterations
            evaluation_due = step.iteration % recipe.eval_every == 0 and not last
            self.save_and_stop_if_signalled(step.iteration, evaluation_due)
            if evaluation_due:
                self.evaluate(step.iteration)
            kept = is_kept(step.iteration, recipe.keep_every)
            if last or kept or step.iteration % recipe.checkpoint_every == 0:
                self.writer.begin(self.snapshot(step.iteration), wait=last or kept)

    @property
    def recipe(self) -> RunRecipe:
        return self.task.recipe

    def rows_after(self, step: UpdateResult) -> list[Event]:
        """Return the log lines due after an update."""
        rows = [warmup_row(step, self.schedule)] if step.warmed_up else []
        if step.iteration % self.recipe.log_every == 0 or step.iteration == self.recipe.iterations:
            rows.append(train_row(step, self.progress))
            self.progress.restart_timing()
        return rows

    def evaluate(self, iteration: int) -> None:
        """Evaluate the monitored sets; a plateau of the first set's error lowers the rate."""
        reports = self.task.evaluate(
            lambda: self.save_and_stop_if_signalled(iteration, evaluation_due=True)
        )
        if reports:
            self.schedule.observe_evaluation(self.task.error_of(reports[0]))
        self.write([eval_row(iteration, report) for report in reports])
        self.progress.restart_timing()

    def write(self, rows: Sequence[Event]) -> None:
        self.writer.log(rows)
        for row in rows:
            self.on_event(row)

    def save_and_stop_if_signalled(self, iteration: int, evaluation_due: bool) -> None:
        """Save the state after `iteration` updates and raise Interrupted if a signal came."""
        if signal := self.stop():
            self.writer.save(self.snapshot(iteration, evaluation_due=evaluation_due))
            # a process that exited before the first one has saved would take that one down too
            self.task.device.processes.all_reduce_max(0)
            raise self.interrupted(signal, iteration)

    def stop_if_signalled(self) -> None:
        """Raise Interrupted if a signal came; after the last update everything is already saved."""
        if signal := self.stop():
            self.writer.close()
            saved = self.task.device.processes.run_on_first(lambda: self.writer.saved)
            raise self.interrupted(signal, saved)

    def interrupted(self, signal: int, iteration: int) -> Interrupted:
        """Return the exception for a run that was stopped and saved at an iteration."""
        command = self.recipe.deviations.resume_command(self.folder.path)
        return Interrupted(signal, command, iteration)

    def finish(self, seconds: float) -> Event:
        """Make the final reports, write the model, the result and the curves; return the result."""
        reports, files = self.task.finish(self.stop_if_signalled)
        rows = [eval_row(self.recipe.iterations, report) for report in reports]
        self.folder.log(rows)
        for row in rows:
            self.on_event(row)
        return self.task.device.processes.run_on_first(
            lambda: self.write_result((reports, files), seconds)
        )

    def write_result(self, final: Final, seconds: float) -> Event:
        """Write the files of a finished run into its folder and return the result."""
        folder, task, (reports, files) = self.folder, self.task, final
        weights = task.net.state_dict()
        result = {
            "weights_sha256": sha256_of(weights),
            "state_sha256": sha256_of(weights | task.optimizer.state().tensors),
            "iterations": self.recipe.iterations,
            "seconds": round(seconds, 2),
            "train_error": self.progress.epoch_error(),
            "evaluation": reports,
        }
        model = task.model_file([without_details(report) for report in reports])
        folder.write("model.safetensors", model)
        for name, content in files.items():
            folder.write(name, content)
        folder.write_json("result.json", result)
        write_curves(folder, self.recipe, self.on_event)
        return result


def write_curves(folder: RunFolder, recipe: RunRecipe, on_event: Callback) -> None:
    """Plot the curves of a finished run, unless its folder has them; a failure is only noted."""
    from reslab.training.curves import draw_curves

    if (folder.path / CURVES).exists():
        return
    try:
        folder.write(CURVES, draw_curves(folder.rows(), recipe.name).encode())
    except Exception as error:  # whatever a plotting library raises: the result is complete
        reason = os_reason(error) if isinstance(error, OSError) else error
        on_event(note(f"{folder.path / CURVES} is missing: {reason}"))
