"""Train a recipe into a run folder: the classifier's entry point and the path all tasks share."""

import platform
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic

import torch

import reslab
from reslab.data.datasets import FolderSplits, MemorySplits
from reslab.data.location import Location, absolute
from reslab.runtime.cpu import kernel_limit
from reslab.runtime.device import Device, Processes, setup_device
from reslab.runtime.events import Callback, Log, note, silent
from reslab.runtime.text import without_secrets
from reslab.runtime.threads import usable_cores
from reslab.training.checkpoint import Checkpoint, recover_newest_checkpoint
from reslab.training.classification import ClassificationTask
from reslab.training.data_record import (
    AnySplits,
    changes_since,
    examine_data,
    must_have_known_classes,
)
from reslab.training.engine import ENGINE_FACTS, Engine, continued_engine, new_engine
from reslab.training.folder import RunFolder
from reslab.training.log import must_be_finite
from reslab.training.loop import Observer
from reslab.training.origin import (
    InitialState,
    fit_to_weights,
    must_match_weights,
    read_initial_state,
)
from reslab.training.own import (
    OwnParts,
    facts_of_net,
    must_have_parts,
    own_randomness,
    with_own_parts,
)
from reslab.training.recipe import Recipe, RunRecipe, TaskRecipe
from reslab.training.run import Stop, run_task, write_curves
from reslab.training.setup import Inputs, inputs_at, open_data, opened_data, setup_classification
from reslab.training.task import Task
from reslab.training.weights import load_classifier

# if one of these differs on resume, the run is still correct but no longer bit-exact
BINDING = ("device", "precision", "threads", "torch", "processor", *ENGINE_FACTS)


@dataclass(frozen=True)
class Job(Generic[TaskRecipe]):
    """One call to train: the recipe, its inputs, the run folder and the callbacks."""

    recipe: TaskRecipe
    out: Path
    inputs: Inputs
    device: Device
    seed: int
    on_event: Callback = silent
    stop: Stop = lambda: None
    observer: Observer | None = None
    own: OwnParts = field(default_factory=OwnParts)
    opened: AnySplits | None = None  # the data, if an own-* recipe was made from them

    def log(self, text: str) -> None:
        """Send the user a one-line note."""
        self.on_event(note(text))

    def environment(self) -> dict[str, Any]:
        """Return the content of environment.json for a run started now: enough to repeat the run,
        and to detect when the last bits may differ."""
        inputs, device = self.inputs, self.device
        return {
            "seed": self.seed,
            "data": absolute(inputs.data) if inputs.data else None,
            "weights": str(inputs.weights.resolve()) if inputs.weights else None,
            "device": device_name(device.torch_device),
            "precision": device.precision,
            "threads": torch.get_num_threads(),
            "processes": device.processes.count,
            "processor": processor(),
            "reslab": reslab.__version__,
            "commit": commit(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "command": " ".join(["reslab", *map(without_secrets, sys.argv[1:])]),
            **(facts_of_net(self.own.net) if self.own.net is not None else {}),
        }

    def examine(self, sets: AnySplits, folder: RunFolder | None) -> bytes:
        """Return the record of the images for the run folder; see `examine_data`.

        In processes other than the first it is empty.
        """
        records: list[bytes] = []

        def work() -> None:
            records.append(examine_data(sets, folder, self.inputs.data, self.log))

        self.device.processes.run_on_first(work)  # whose record is too large to be sent
        return b"".join(records)

    def weights_of(self, folder: RunFolder | None) -> Path | None:
        """Return the path of the weights: the one given now, or else when the run was started."""
        if self.inputs.weights is not None or folder is None:
            return self.inputs.weights
        named = folder.environment().get("weights")
        return Path(named) if named else None


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    seed: int = 1,
    data: str | Location | Inputs | None = None,
    weights: str | Path | None = None,
    own: OwnParts = OwnParts(),
    observer: Observer | None = None,
    on_event: Callback = silent,
    stop: Stop = lambda: None,
) -> dict[str, Any]:
    """Train `recipe` into the folder `out`, or continue the run in `out`, and return its result.

    `weights` is a model file or run folder to start from; `own` are parts that replace the recipe's
    and are recorded in it as deviations. `on_event` receives every log line as it is written;
    `stop` is called after each update and ends the run, with a checkpoint, by returning a signal
    number (see `run_task`). `observer(iteration, net)` is called between backward and step of every
    update, counted from 1, when `.grad` holds the sum over all shares; it must not change anything,
    because the run does not record it.
    """
    inputs = inputs_at(data, weights)
    if inputs.weights:
        model = inputs.read(load_classifier, inputs.weights)
        recipe = recipe if recipe.weights else fit_to_weights(recipe, model)
    if opened := opened_data(recipe, inputs):
        must_have_known_classes(Path(out), opened.train.ids)
    device = setup_device(recipe.precision)
    with own_randomness(own, device):
        recipe = with_own_parts(recipe, own, device)
        job = Job(recipe, Path(out), inputs, device, seed, on_event, stop, observer, own, opened)
        return train_in_folder(job, begin_run)


def begin_run(job: Job[Recipe], folder: RunFolder | None) -> ClassificationTask:
    """Build the task for a new run, or for the run in `folder`, after examining its images."""
    sets = open_sets(job)
    record = job.examine(sets, folder)
    return replace(begin_classification(job, folder, sets), data_record=record)


def begin_classification(
    job: Job[Recipe],
    folder: RunFolder | None = None,
    sets: MemorySplits | FolderSplits | None = None,
) -> ClassificationTask:
    """Build the task for a new run, or for the run in `folder`; `sets` are the opened data."""
    sets = sets or open_sets(job)
    origin = initial_state(job, folder)
    if not origin.begun:
        must_match_weights(job.recipe, origin.weights)
    return setup_classification(job.recipe, job.seed, sets, job.device, origin, job.log, job.own)


def open_sets(job: Job[Recipe]) -> MemorySplits | FolderSplits:
    """Open a run's image sets; raise ValueError if parts of the user's own are missing."""
    must_have_parts(job.recipe, job.own, job.out)
    return job.own.data or open_data(job.recipe, job.inputs)


def initial_state(job: Job[Recipe], folder: RunFolder | None) -> InitialState:
    """Return the initial state of a new run, or of the run in `folder`."""
    origin, path = read_initial_state(folder), job.weights_of(folder)
    if path is None or origin.begun or (folder and job.recipe.weights is None):
        return origin
    weights = job.inputs.read(load_classifier, path)
    for line in weights.notes:
        job.log(line)
    return replace(origin, weights=weights)


def train_in_folder(
    job: Job[TaskRecipe], begin: Callable[[Job[TaskRecipe], RunFolder | None], Task]
) -> dict[str, Any]:
    """Train the task that `begin` builds in the job's folder, and return the result.

    `begin` receives the job and the folder of the run to continue, or None for a new run. A new
    run's folder is created afterwards, so that missing data or weights leave nothing behind. Raise
    Diverged if the final loss is not finite, after everything is written.
    """
    processes, out = job.device.processes, job.out
    must_divide_evenly(job.recipe, processes)
    on_event = job.on_event if processes.first else silent
    task: Task | None = None
    log: Log = lambda text: on_event(note(text))  # noqa: E731
    with ExitStack() as ending:
        known = processes.run_on_first(partial(environment_in, out))
        if known is not None:
            # sums depend on the number of threads, so a resumed run keeps its original number
            torch.set_num_threads(known.get("threads") or torch.get_num_threads())
            engine = Engine()
            if not (out / "result.json").exists():  # a finished run needs none
                engine = continued_engine(job.recipe, known, job.device, job.observer, log)
        else:
            task = begin(job, None)
            ending.callback(task.close)
            engine = new_engine(task, job.observer, log)
        now, folder = job.environment() | engine.facts, RunFolder(out, writes=processes.first)

        result, differences, saved = processes.run_on_first(
            lambda: enter(job, folder, now, ending, is_new=known is None)
        )
        if result is not None:
            on_event(note("this run is finished"))
            if processes.first:
                write_curves(folder, job.recipe, on_event)
            if job.opened and (changes := changes_since(out, job.opened)):
                on_event(note(f"its images have changed since it began: {changes}"))
            must_be_finite(result, out, job.recipe)
            return result
        if differences:
            reported = "; ".join(differences)
            on_event(note(f"not bit-exact from here on, the machine or engine differs: {reported}"))
        if task is None:
            task = begin(job, folder)
            ending.callback(task.close)
        for name, content in task.files.items():
            folder.write_missing(name, content)
        log(engine.line)
        # a signal to one process stops all, at the same iteration
        agreed: Stop = lambda: processes.all_reduce_max(job.stop() or 0) or None  # noqa: E731
        result = run_task(
            task, folder, saved, on_event=on_event, stop=agreed, observer=job.observer,
            engine=engine,
        )  # fmt: skip
        must_be_finite(result, out, job.recipe)
        return result


def enter(
    job: Job[TaskRecipe], folder: RunFolder, now: dict[str, Any], ending: ExitStack, *, is_new: bool
) -> tuple[dict[str, Any] | None, list[str], Checkpoint | None]:
    """Lock the job's folder until the `ending`, and create or open the run in it.

    Return the result, if the run is finished, how the environment has changed, and the newest
    checkpoint.
    """
    handle = folder.enter(job.recipe, now)
    saved = None
    if handle is not None:
        ending.callback(folder.unlock, handle)
        folder.remove_leftovers()
        saved = recover_newest_checkpoint(folder.checkpoints, job.log)
        if saved and is_new:
            raise ValueError(f"another process has just begun {job.out}: repeat the command")
    return folder.result(), environment_changes(folder.environment(), now), saved


def environment_in(out: Path) -> dict[str, Any] | None:
    """Return the environment of the run in `out`, or None if there is no run."""
    return RunFolder.open(out).environment() if (out / "recipe.json").exists() else None


def must_divide_evenly(recipe: RunRecipe, processes: Processes) -> None:
    """Raise ValueError unless the virtual GPUs divide evenly among the processes."""
    count, shares = processes.count, recipe.virtual_gpus
    if shares % count == 0:
        return
    fit = [str(number) for number in range(1, shares + 1) if shares % number == 0]
    sizes = " or ".join([", ".join(fit[:-1]), fit[-1]] if len(fit) > 1 else fit)
    more = "" if recipe.batch_size % count else f", or set virtual_gpus={count} for another run"
    raise ValueError(
        f"{shares} virtual_gpus cannot be divided evenly among {count} processes: use {sizes}{more}"
    )


def environment_changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a line for each difference between environments that can change a run's last bits."""
    before, after = ({"engine": "torch"} | environment for environment in (then, now))
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in BINDING
        if before.get(key) != after.get(key)
    ]


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def processor() -> str:
    """Return the processor's name, the number of usable cores, and RESLAB_CPU if it is set."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass  # not Linux: keep the plain name
    kernels = f", kernels for {limit}" if (limit := kernel_limit()) else ""
    return f"{name}, {usable_cores()} cores{kernels}"


def commit() -> str | None:
    """Return the source tree's commit, with `+` appended if modified, or None outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):  # an installed copy inside another repository
            return None
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None
