"""Open a recipe by name, estimate the cost of its run, and train it."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from reslab.errors import os_reason
from reslab.recipes import AnyRecipe, open_recipe, recipe_in, task_kind
from reslab.runtime.device import setup_device
from reslab.runtime.events import Callback, silent
from reslab.training.folder import RunFolder
from reslab.training.probe import Probe, probe
from reslab.training.run import Stop
from reslab.training.setup import Inputs, inputs_at
from reslab.training.train import Job


def request_run(
    name: str, data: str | None = None, weights: Path | None = None, changes: Sequence[str] = ()
) -> tuple[AnyRecipe, Inputs]:
    """Look up a recipe and apply the changes; own-* recipes are built from the data."""
    inputs = inputs_at(data, weights)
    return open_recipe(name, inputs, changes), inputs


def interrupted_run(run: Path, data: str | None) -> tuple[AnyRecipe, Inputs, int]:
    """Return the recipe, inputs and seed of a run; `data` is the new place of data that moved."""
    folder = RunFolder.open(run)
    environment = folder.environment()
    return recipe_in(folder), inputs_at(data or environment["data"]), environment["seed"]


def plan(
    recipe: AnyRecipe, inputs: Inputs, *, iterations: int = 20, on_event: Callback = silent
) -> tuple[dict[str, Any], Probe]:
    """Estimate the cost of a run on this machine from some iterations, without writing anything.

    Return facts for JSON and the measured speeds.
    """
    device = setup_device(recipe.precision)
    job = Job(recipe, Path(), inputs, device, seed=1, on_event=on_event)
    with closing(task_kind(recipe).probe_target(job)) as target:
        speeds = probe(target, iterations)
        facts = {
            "recipe": recipe.name,
            "device": str(device.torch_device),
            "precision": device.precision,
            "pictures": target.images,
            "iterations": recipe.iterations,
            "epochs": round(recipe.iterations / target.task.epoch, 1),
            "batch_size": recipe.batch_size,
            "hours": speeds.seconds(target) / 3600,
            "memory": speeds.memory,
            "limit": speeds.limit,
            "pictures_per_second": {
                "training": speeds.together,
                "network": speeds.network,
                "preparing": speeds.images,
                "reading": speeds.reading,
                "evaluating": speeds.evaluating,
            },
        }
    return facts, speeds


def train(
    recipe: AnyRecipe, inputs: Inputs, out: Path, *, seed: int, on_event: Callback, stop: Stop
) -> dict[str, Any]:
    """Train into the folder `out`, or continue the run in `out`, and return its result.

    `stop` is called after each iteration; if it returns a signal number, a checkpoint is saved and
    Interrupted is raised.
    """
    run = task_kind(recipe).train
    try:
        return run(recipe, out, seed=seed, data=inputs, on_event=on_event, stop=stop)
    except OSError as error:
        saved = out / "checkpoints"
        if saved.is_dir() and any(saved.iterdir()):
            raise RuntimeError(
                f"{os_reason(error)}: {out}; what was saved is whole: mend it, then "
                f"`reslab resume {out}`"
            ) from error
        raise
