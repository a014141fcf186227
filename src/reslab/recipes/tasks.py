"""The recipe class and the functions of each task."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reslab.detection.alternating import detector_target, train_detector
from reslab.detection.recipe import DetectionRecipe
from reslab.recipes import AnyRecipe
from reslab.training.folder import RunFolder
from reslab.training.probe import ProbeTarget, classifier_target
from reslab.training.recipe import Recipe, RunRecipe, TaskName
from reslab.training.task import task_of
from reslab.training.train import Job, train


@dataclass(frozen=True)
class TaskKind:
    """The recipe class and the functions of a task."""

    recipe: type[RunRecipe]
    train: Callable[..., dict[str, Any]]  # called like `reslab.train`
    probe_target: Callable[[Job[Any]], ProbeTarget]  # sets up a new run to measure its cost


TASK_KINDS: dict[TaskName, TaskKind] = {
    "classification": TaskKind(Recipe, train, classifier_target),
    "detection": TaskKind(DetectionRecipe, train_detector, detector_target),
}


def task_kind(source: RunRecipe | RunFolder) -> TaskKind:
    """Return the recipe class and functions for the task of a recipe or a run folder."""
    return TASK_KINDS[task_of(source)]


def recipe_in(folder: RunFolder) -> AnyRecipe:
    """Read the recipe of a run of any task."""
    recipe = folder.recipe_as(task_kind(folder).recipe)
    assert isinstance(recipe, AnyRecipe)
    return recipe
