"""Named sets of runs that answer one question of the paper each."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from reslab.data.builtin import SetName
from reslab.detection.initial import load_weights
from reslab.errors import unknown_name
from reslab.models.config import CIFAR_DEPTHS
from reslab.recipes import AnyRecipe, any_recipe
from reslab.recipes import recipe as recipe_named
from reslab.training.folder import RunFolder
from reslab.training.recipe import RunRecipe

STUDIES = ("degradation", "depth", "shortcuts", "responses", "detection")
EVALUATIONS = 20  # points of a curve, at least, when a schedule is shortened
CLASSIFIER, DETECTOR = "digits-resnet20", "digit-scenes-resnet20-c4"
UNTRAINED = ("model.norm=group",)  # batch norm would need statistics of trained weights


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
    weights: Path | None = None  # the folder of the run that it starts from

    @property
    def recipe(self) -> AnyRecipe:
        """Without the digest of its weights, which may not be there yet."""
        return any_recipe(self.base).with_changes(self.changes)

    def must_be_in_its_folder(self) -> None:
        """ValueError if the folder holds another run; weights that are not there are not seen."""
        if not (self.folder / "recipe.json").exists():
            return
        if self.weights and not (self.weights / "model.safetensors").exists():
            return
        weights = load_weights(self.weights) if self.weights else None
        recipe = any_recipe(self.base, weights=weights).with_changes(self.changes)
        RunFolder(self.folder).must_match(recipe, self.seed)


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
    raise ValueError(unknown_name("study", name, STUDIES))


def plan_runs(
    it: Experiment, on: SetName, out: Path, *, iterations: int | None, seeds: int
) -> list[PlannedRun]:
    """The runs of an experiment; a shortened schedule keeps the place of its drops."""
    must_be_positive(iterations)
    runs = []
    for seed in range(1, seeds + 1):
        for model in it.models:
            base = f"{on}-{model}"
            changes = shortened(recipe_named(base), iterations)
            runs.append(PlannedRun(base, changes, seed, out / "runs" / f"{model}-seed{seed}"))
    return runs


def plan_detection(out: Path, *, iterations: int | None, seeds: int) -> list[PlannedRun]:
    """A classifier, then a detector from its weights and one from nothing for each seed.

    `iterations` are the detectors'; the classifier's are shortened in proportion.
    """
    must_be_positive(iterations)
    whole = any_recipe(DETECTOR).iterations
    share = min(1.0, (iterations or whole) / whole)
    classifier = any_recipe(CLASSIFIER)
    shorter = shortened(classifier, ceil(share * classifier.iterations))
    trunk = PlannedRun(CLASSIFIER, shorter, 1, out / "runs" / CLASSIFIER)
    changes = shortened(any_recipe(DETECTOR), iterations, watched_closely=True)
    runs = [trunk]
    for seed in range(1, seeds + 1):
        place = out / "runs" / f"trained-seed{seed}"
        runs.append(PlannedRun(DETECTOR, changes, seed, place, trunk.folder))
        place = out / "runs" / f"untrained-seed{seed}"
        runs.append(PlannedRun(DETECTOR, (*changes, *UNTRAINED), seed, place))
    return runs


def must_be_positive(iterations: int | None) -> None:
    if iterations is not None and iterations < 1:
        raise ValueError(f"--iterations {iterations}: at least 1")


def shortened(
    recipe: RunRecipe, iterations: int | None, *, watched_closely: bool = False
) -> tuple[str, ...]:
    """The changes that shorten a recipe, with curves and checkpoints as dense as its shape asks.

    `watched_closely` asks for the dense curve of the whole schedule too.
    """
    whole = iterations is None or iterations == recipe.iterations
    if whole and not watched_closely:
        return ()
    every = max(1, (iterations or recipe.iterations) // EVALUATIONS)
    changes = [] if whole else [f"iterations={iterations}"]
    changes += [f"eval_every={every}"] if every < recipe.eval_every else []
    changes += [f"checkpoint_every={every}"] if every < recipe.checkpoint_every else []
    return tuple(changes)
