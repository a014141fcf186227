"""The function that trains a recipe into a run folder, and what is the same for every task."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reslab.data.location import Location, parse_location
from reslab.models.model_file import Model, load_model
from reslab.runtime.device import Device, Processes, setup_device
from reslab.runtime.events import Callback, note, silent
from reslab.training.checkpoint import checkpoints_in
from reslab.training.classification import parts_of
from reslab.training.environment import environment, environment_changes
from reslab.training.folder import RunFolder
from reslab.training.origin import (
    FILE,
    InitialState,
    fit_to_weights,
    initial_state_bytes,
    read_initial_state,
)
from reslab.training.recipe import Recipe, RunRecipe
from reslab.training.run import (
    Stop,
    Task,
    run_task,
)
from reslab.training.setup import setup_classification


@dataclass(frozen=True)
class Begun:
    """A run whose data, network and weights are there."""

    parts: Task
    close: Callable[[], None]  # ends what prepares its mini-batches
    files: Mapping[str, bytes] = field(default_factory=dict)  # kept with the run from its beginning


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    seed: int = 1,
    data: str | Location | None = None,
    weights: str | Path | None = None,
    on_event: Callback = lambda row: None,
    stop: Stop = lambda: None,
) -> dict[str, Any]:
    """Train `recipe` into the folder `out`, or go on with the run that is there; its result.

    `weights` is a model file or run folder to start from. `tell` hears every line of the log as it
    is written; `stop` is asked after each update and ends the run, saved, by returning a signal's
    number (see `run`).
    """
    place = parse_location(data) if data else None
    given = load_model(weights) if weights else None
    if given and recipe.weights is None:
        recipe = fit_to_weights(recipe, given)
    device = setup_device(recipe.precision)

    def begin(folder: RunFolder | None) -> Begun:
        origin = recover_initial_state(folder, given) if folder else InitialState(given)
        it = setup_classification(
            recipe, seed, place, device, origin, lambda text: on_event(note(text))
        )
        files = {FILE: initial_state_bytes(it.origin)} if recipe.data == "pictures" else {}
        return Begun(parts_of(it), it.close, files)

    return train_in_folder(
        recipe, Path(out), begin, device=device, seed=seed, data=place,
        weights=Path(weights) if weights else None, on_event=on_event, stop=stop,
    )  # fmt: skip


def train_in_folder(
    recipe: RunRecipe,
    out: Path,
    begin: Callable[[RunFolder | None], Begun],
    *,
    device: Device,
    seed: int,
    data: Location | None,
    weights: Path | None,
    on_event: Callback,
    stop: Stop,
) -> dict[str, Any]:
    """Run what `begin` makes ready in the folder `out`; the result.

    `begin` is given the folder of the run to go on with. For a new run it is given None, before
    there is a folder: data or weights that are missing should leave nothing behind.
    """
    processes = device.processes
    must_divide_evenly(recipe, processes)
    on_event = on_event if processes.first else silent
    begun: Begun | None = None
    with ExitStack() as ending:
        known = processes.run_on_first(partial(environment_in, out))
        if known is not None:
            # sums depend on the number of threads: a resumed run keeps its own
            torch.set_num_threads(known.get("threads") or torch.get_num_threads())
        else:
            begun = begin(None)
            ending.callback(begun.close)
        here = environment(device, seed=seed, data=data, weights=weights)

        def enter() -> tuple[dict[str, Any] | None, list[str]]:
            made = RunFolder.create(out, recipe, here)
            ending.callback(made.unlock, made.lock())
            return made.result(), environment_changes(made.environment(), here)

        result, differences = processes.run_on_first(enter)
        folder = RunFolder(out, writes=processes.first)
        if result is not None:
            on_event(note("this run is finished"))
            return result
        if differences:
            reported = "; ".join(differences)
            on_event(note(f"not bit-exact from here on, the machine differs: {reported}"))
        if begun is None:
            begun = begin(folder)
            ending.callback(begun.close)
        for name, content in begun.files.items():
            if not (folder.path / name).exists():
                folder.write(name, content)
        # a signal to one is a signal to all, at the same iteration
        agreed: Stop = lambda: processes.all_reduce_max(stop() or 0) or None  # noqa: E731
        return run_task(recipe, begun.parts, folder, on_event=on_event, stop=agreed)


def environment_in(out: Path) -> dict[str, Any] | None:
    """That of the run in a folder; None if there is none."""
    return RunFolder.open(out).environment() if (out / "recipe.json").exists() else None


def must_divide_evenly(recipe: RunRecipe, processes: Processes) -> None:
    """ValueError unless the virtual GPUs can be dealt whole."""
    count, shares = processes.count, recipe.virtual_gpus
    if shares % count == 0:
        return
    fit = [str(number) for number in range(1, shares + 1) if shares % number == 0]
    sizes = " or ".join([", ".join(fit[:-1]), fit[-1]] if len(fit) > 1 else fit)
    more = "" if recipe.batch_size % count else f", or --set virtual_gpus={count} for another run"
    raise ValueError(
        f"{shares} virtual_gpus cannot be dealt whole to {count} processes: take {sizes}{more}"
    )


def recover_initial_state(folder: RunFolder, given: Model | None) -> InitialState:
    """What the run in a folder starts from, or goes on from."""
    begun = bool(checkpoints_in(folder.checkpoints))
    origin = read_initial_state(folder.path, begun=begun)
    named = folder.environment().get("weights")
    if begun or folder.recipe().weights is None:
        return origin
    if given is None and named is not None:
        given = load_model(named)
    return replace(origin, weights=given)
