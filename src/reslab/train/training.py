"""The function that trains a recipe into a run folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from reslab.models.weights import Model, load
from reslab.train.checkpoint import checkpoints_in
from reslab.train.classification import Classification, parts_of
from reslab.train.environment import environment, moved
from reslab.train.folder import RunFolder
from reslab.train.origin import FILE, Origin, origin_bytes, read_origin, starting_from
from reslab.train.prepare import prepare
from reslab.train.progress import note
from reslab.train.recipe import Recipe
from reslab.train.run import Tell, run
from reslab.world import open_world


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    seed: int = 1,
    data: str | Path | None = None,
    weights: str | Path | None = None,
    tell: Tell = lambda row: None,
    stop: Callable[[], int | None] = lambda: None,
) -> dict[str, Any]:
    """Train `recipe` into the folder `out`, or go on with the run that is there; its result.

    `weights` is a model file or run folder to start from. `tell` hears every line of the log as it
    is written; `stop` is asked after each update and ends the run, saved, by returning a signal's
    number (see `run`).
    """
    place = Path(data) if data else None
    given = load(weights) if weights else None
    if given and recipe.weights is None:
        recipe = starting_from(recipe, given)
    world = open_world(recipe.precision)
    it: Classification | None = None

    def say(text: str) -> None:
        tell(note(text))

    if (Path(out) / "recipe.json").exists():
        # sums depend on the number of threads: a resumed run keeps its own
        threads = RunFolder.open(Path(out)).environment().get("threads")
        torch.set_num_threads(threads or torch.get_num_threads())
    else:
        # before the folder is made: data that is missing should leave nothing behind
        it = prepare(recipe, seed, place, world, Origin(given), say)
    here = environment(world, seed=seed, data=place, weights=Path(weights) if weights else None)
    folder = RunFolder.create(Path(out), recipe, here)
    handle = folder.lock()
    try:
        result = folder.result()
        if result is not None:
            say("this run is finished")
            return result
        differences = moved(folder.environment(), here)
        if differences:
            say(f"not bit-exact from here on, the machine differs: {'; '.join(differences)}")
        if it is None:
            it = prepare(recipe, seed, place, world, found_in(folder, given), say)
        if recipe.data == "pictures" and not (folder.path / FILE).exists():
            folder.write(FILE, origin_bytes(it.origin))
        return run(recipe, parts_of(it), folder, tell=tell, stop=stop)
    finally:
        if it is not None:
            it.close()
        folder.unlock(handle)


def found_in(folder: RunFolder, given: Model | None) -> Origin:
    """What the run in a folder starts from, or goes on from."""
    begun = bool(checkpoints_in(folder.checkpoints))
    origin = read_origin(folder.path, begun=begun)
    named = folder.environment().get("weights")
    if begun or folder.recipe().weights is None:
        return origin
    if given is None and named is not None:
        given = load(named)
    return replace(origin, weights=given)
