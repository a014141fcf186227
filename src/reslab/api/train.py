"""Train a recipe into a run folder, or resume the run that the folder holds."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from torch import nn

from reslab.api.display import OnEvent, showing
from reslab.api.lines import warn
from reslab.api.results import RunResult, run_result
from reslab.api.signals import Stop, stopping_python
from reslab.data.datasets import FolderSplits, MemorySplits, Splits
from reslab.data.location import can_be_opened, parse_location
from reslab.detection.recipe import DetectionRecipe
from reslab.errors import os_reason
from reslab.recipes import AnyRecipe, open_recipe
from reslab.recipes.tasks import recipe_in, task_kind
from reslab.runtime.distributed import join_processes
from reslab.runtime.events import Callback, start
from reslab.runtime.text import printable
from reslab.training.checkpoint import checkpoints_in
from reslab.training.data_record import recorded_count
from reslab.training.folder import RunFolder
from reslab.training.loop import Observer
from reslab.training.own import OwnParts
from reslab.training.own_optimizer import BuildOptimizer
from reslab.training.recipe import Recipe
from reslab.training.run import Interrupted
from reslab.training.setup import Inputs, inputs_at


def train(
    recipe: str | Recipe | DetectionRecipe,
    out: str | Path,
    *,
    seed: int = 1,
    data: str | Path | MemorySplits | FolderSplits | None = None,
    weights: str | Path | None = None,
    net: nn.Module | None = None,
    optimizer: BuildOptimizer | None = None,
    observer: Observer | None = None,
    on_event: OnEvent = "print",
    stop: Stop | None = None,
) -> RunResult:
    """Train `recipe` into the run folder `out`, or resume the run in `out`; return its result.

    `recipe` is a recipe or its name; `data` is the folder, table of labels or URL of its data set,
    if the recipe needs one; `weights` is the model file or run folder to start from. The result is
    a function of recipe, seed, device, engine and number of threads, to the last bit, interrupted
    or not.
    If the run in `out` is finished, its result is returned.

    A classifier can have parts of your own: `net`, a module from preprocessed images [B, 3, H, W]
    to logits [B, classes]; `data=Splits(train, test)`, sets that `image_set` builds;
    `optimizer`, a function from the network to a torch optimizer, whose rate the recipe's schedule
    sets. The recipe in `out` records them as deviations. To resume, give the same parts again.

    `observer(iteration, net)` is called between backward and step of every update, when `.grad`
    holds the gradients; it must not change anything. Its run uses the engine `torch`.

    `on_event="print"` shows progress: as a bar on a terminal and in a notebook, as lines on
    standard error anywhere else. None silences it; a function is called with every `Event`.

    Ctrl-C saves a checkpoint and raises KeyboardInterrupt; the same call resumes. With `stop` it
    does not: `stop` is called after each iteration, and Interrupted is raised, after a checkpoint,
    once it returns a number.

    Raise ValueError, and train nothing, if `out` holds another run or if recipe, data, weights
    and parts do not fit together.
    """
    if seed < 0:
        raise ValueError(f"seed={seed}: at least 0")
    own = OwnParts(net, data if isinstance(data, Splits) else None, optimizer)
    place = None if isinstance(data, Splits) else data
    inputs = inputs_at(place, weights, recorded_count(Path(out)))
    opened = open_recipe(recipe, inputs) if isinstance(recipe, str) else recipe
    shown = on_event if join_processes().first else None
    stopping = nullcontext(stop) if stop else stopping_python(warn if shown else lambda line: None)
    try:
        with showing(shown) as callback, stopping as stop_now:
            return run(
                opened, inputs, Path(out),
                seed=seed, own=own, observer=observer, on_event=callback, stop=stop_now,
            )  # fmt: skip
    except Interrupted as interrupted:
        if stop:
            raise
        raise KeyboardInterrupt(
            f"stopped at iteration {interrupted.iteration}, saved in {out}; the same call resumes"
        ) from None


def run(
    recipe: AnyRecipe,
    inputs: Inputs,
    out: Path,
    *,
    seed: int,
    own: OwnParts = OwnParts(),
    observer: Observer | None = None,
    on_event: Callback,
    stop: Stop,
) -> RunResult:
    """Do the work of `train`.

    `stop` is called after each iteration; if it returns a signal number, a checkpoint is saved and
    Interrupted is raised.
    """
    on_event(start(recipe.iterations, "iterations"))
    work = task_kind(recipe).train
    if own.names:
        if not isinstance(recipe, Recipe):
            raise ValueError(
                f"{' and '.join(own.names)} of your own: only a classifier can have them"
            )
        work = partial(work, own=own)
    try:
        document = work(
            recipe, out, seed=seed, data=inputs, observer=observer, on_event=on_event, stop=stop
        )
    except OSError as error:
        if checkpoints_in(RunFolder(out).checkpoints):
            command = recipe.deviations.resume_command(out)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise RuntimeError(
                f"{os_reason(error)}: {error.filename or out}; the checkpoints are kept: "
                f"{'free some space, then ' if full else ''}resume with {command}"
            ) from error
        raise
    return run_result(out, document)


def request_run(
    name: str,
    data: str | None = None,
    weights: Path | None = None,
    changes: Sequence[str] = (),
    out: Path | None = None,
) -> tuple[AnyRecipe, Inputs]:
    """Look up a recipe and apply the changes; own-* recipes are built from the data.

    If there is a run in `out`, they are built for the number of images that it began with.
    """
    inputs = inputs_at(data, weights, recorded_count(out) if out else None)
    return open_recipe(name, inputs, changes), inputs


def interrupted_run(run: Path, data: str | None) -> tuple[AnyRecipe, Inputs, int]:
    """Return the recipe, inputs and seed of a run; `data` is the new location of its data."""
    folder = RunFolder.open(run)
    environment = folder.environment()
    recorded = environment["data"]
    if data is None and recorded is not None and folder.result() is None:
        place = parse_location(recorded)
        if isinstance(place, Path) and not can_be_opened(place):
            raise ValueError(
                f"{run} began with the data in {printable(str(place))}, as its environment.json "
                "records, which does not exist: name their place with `data`"
            )
    return recipe_in(folder), inputs_at(data or recorded), environment["seed"]
