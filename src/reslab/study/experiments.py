"""Named sets of runs that answer one question of the paper each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reslab.data.sets import SetName
from reslab.models.resnet import CIFAR_DEPTHS
from reslab.recipes import AnyRecipe, any_recipe
from reslab.recipes import recipe as recipe_named
from reslab.train.recipe import RunRecipe
from reslab.words import unknown

EVALUATIONS = 20  # points of a curve, at least, when a schedule is shortened


@dataclass(frozen=True)
class Experiment:
    """A question and the networks that answer it."""

    name: str
    title: str
    question: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class PlannedRun:
    """One run of an experiment and its folder."""

    base: str  # the recipe's name
    changes: tuple[str, ...]
    seed: int
    folder: Path

    @property
    def recipe(self) -> AnyRecipe:
        return any_recipe(self.base).with_changes(self.changes)


def experiment(name: str, depths: Sequence[int] = ()) -> Experiment:
    """The experiment of that name, at `depths` instead of its own if any are given."""
    for depth in depths:
        if depth not in CIFAR_DEPTHS:
            known = ", ".join(map(str, CIFAR_DEPTHS))
            raise ValueError(f"--depths {depth}: the depths of Table 6 are {known}")
    if name == "degradation":
        at = depths or (20, 56)
        return Experiment(
            name,
            "Degradation: does depth hurt?",
            "Does a deeper plain net have a higher training error, and does a residual net not? "
            "(Sec. 4.2, Fig. 6)",
            (*(f"plain{d}" for d in at), *(f"resnet{d}" for d in at)),
        )
    if name == "depth":
        at = depths or (20, 32, 44, 56, 110)
        return Experiment(
            name,
            "Depth: do residual nets gain from it?",
            "Does the test error of residual nets fall as they grow deeper? (Sec. 4.2, Table 6)",
            tuple(f"resnet{d}" for d in at),
        )
    if name == "shortcuts":
        at = depths or (20,)
        return Experiment(
            name,
            "Shortcuts: identity or projection?",
            "How much do options A, B and C differ? (Sec. 4.1, Table 3, here on CIFAR's nets)",
            tuple(f"resnet{d}-{option}" for d in at for option in "ABC"),
        )
    raise ValueError(unknown("study", name, ("degradation", "depth", "shortcuts", "responses")))


def plan(
    it: Experiment, on: SetName, out: Path, *, iterations: int | None, seeds: int
) -> list[PlannedRun]:
    """The runs of an experiment; a shortened schedule keeps the place of its drops."""
    if iterations is not None and iterations < 1:
        raise ValueError(f"--iterations {iterations}: at least 1")
    runs = []
    for seed in range(1, seeds + 1):
        for model in it.models:
            base = f"{on}-{model}"
            changes = shortened(recipe_named(base), iterations)
            runs.append(PlannedRun(base, changes, seed, out / "runs" / f"{model}-seed{seed}"))
    return runs


def shortened(recipe: RunRecipe, iterations: int | None) -> tuple[str, ...]:
    """The changes that shorten a recipe, with curves and checkpoints as dense as its shape asks."""
    if iterations is None or iterations == recipe.iterations:
        return ()
    every = max(1, iterations // EVALUATIONS)
    changes = [f"iterations={iterations}"]
    changes += [f"eval_every={every}"] if every < recipe.eval_every else []
    changes += [f"checkpoint_every={every}"] if every < recipe.checkpoint_every else []
    return tuple(changes)
