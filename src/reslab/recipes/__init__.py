"""The catalogue of recipes: classifiers as `<data>-<model>`, detectors as `<data>-<trunk>-c4`.

A name is looked up in the table FAMILIES, and only its recipe is built. The table TASK_KINDS maps
each task to its recipe class and functions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reslab.data.datasets import EncodedImages
from reslab.data.folder import read_folder, split_folder
from reslab.data.location import Location, to_folder
from reslab.data.small_images import side_of_images
from reslab.detection.alternating import detector_target, train_detector
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import Weights, fit_detector_to_weights, read_splits, read_weights
from reslab.errors import unknown_name
from reslab.models.config import ResNetConfig, cifar_names, config_named, imagenet_names
from reslab.models.model_file import Model
from reslab.recipes.classification import (
    cifar10_recipe,
    digits_recipe,
    imagenet_recipe,
    own_recipe,
    own_small_recipe,
)
from reslab.recipes.detection import (
    coco_recipe,
    digit_scenes_recipe,
    own_detection_recipe,
    voc_recipe,
)
from reslab.training.folder import RunFolder
from reslab.training.origin import fit_to_weights
from reslab.training.probe import ProbeTarget, classifier_target
from reslab.training.recipe import Recipe, RunRecipe
from reslab.training.setup import Inputs, inputs_at
from reslab.training.task import TaskName, task_of
from reslab.training.train import Job, train

AnyRecipe = Recipe | DetectionRecipe
OWN_VALIDATION = 0.2  # fraction of an unsplit folder; the same as the recipes' default
# the residual nets for the user's small images, and the trunks of small detectors
SMALL_NETS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
TRUNKS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
C4 = "-c4"  # regions are pooled from the feature map of conv4_x


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


def network_of(recipe: RunRecipe) -> ResNetConfig:
    """Return the network that a recipe trains, or its detector's trunk."""
    if isinstance(recipe, DetectionRecipe):
        return recipe.model.trunk
    assert isinstance(recipe, Recipe)
    return recipe.model


@dataclass(frozen=True)
class Family:
    """Recipes that differ only in their network: `<prefix><model><suffix>`."""

    task: TaskName
    prefix: str
    models: Sequence[str]
    make: Callable[..., AnyRecipe]  # takes (model, config); if `own`, also (inputs, weights)
    own: bool = False

    @property
    def suffix(self) -> str:
        return C4 if self.task == "detection" else ""

    def names(self) -> list[str]:
        return [f"{self.prefix}{model}{self.suffix}" for model in self.models]

    def recipes(self) -> list[AnyRecipe]:
        return [self.make(model, config_named(model)) for model in self.models]


def own_images(model: str, config: ResNetConfig, inputs: Inputs, weights: Model | None) -> Recipe:
    """Build a recipe for the user's folder of images, after reading its classes and size."""
    train = own_training_images(model, inputs)
    return own_recipe(model, config, train, weights, inputs.count)


def own_small_images(
    model: str, config: ResNetConfig, inputs: Inputs, weights: Model | None
) -> Recipe:
    """Build a recipe for the user's small images of one size, after reading their classes."""
    train = own_training_images(model, inputs)
    side = side_of_images(train, f"own-{model}")
    return own_small_recipe(model, config, train, side, weights, inputs.count)


def own_training_images(model: str, inputs: Inputs) -> EncodedImages:
    """Return the training images in the user's folder."""
    if inputs.data is None:
        raise ValueError(f"own-{model} is made from your images: name their folder with `data`")
    return split_folder(inputs.read(read_folder, inputs.data), OWN_VALIDATION).train


def own_boxes(
    model: str, config: ResNetConfig, inputs: Inputs, weights: Weights | None
) -> DetectionRecipe:
    """Build a recipe for the user's folder of images with boxes, after reading it."""
    name = f"own-detection-{model}{C4}"
    if inputs.data is None:
        raise ValueError(f"{name} is made from your boxes: name their folder with `data`")
    folder = to_folder(inputs.data, f"{name} needs")
    sets = read_splits(inputs, folder, "", OWN_VALIDATION)
    return own_detection_recipe(model, config, sets.train, inputs.count)


FAMILIES = (
    Family("classification", "digits-", cifar_names(), digits_recipe),
    Family("classification", "cifar10-", cifar_names(), cifar10_recipe),
    Family("classification", "imagenet-", imagenet_names(), imagenet_recipe),
    Family("classification", "own-", SMALL_NETS, own_small_images, own=True),
    Family("classification", "own-", imagenet_names(), own_images, own=True),
    Family("detection", "digit-scenes-", SMALL_NETS, digit_scenes_recipe),
    Family("detection", "coco-", TRUNKS, coco_recipe),
    Family("detection", "voc07+12-", TRUNKS, voc_recipe),
    Family("detection", "own-detection-", TRUNKS, own_boxes, own=True),
)


def recipe_names(task: TaskName | None = None, *, own: bool | None = None) -> list[str]:
    """Return the names of the recipes for a task, or for all tasks.

    `own` selects the recipes built from the user's own images (True) or the fixed ones (False).
    """
    return [
        name
        for family in FAMILIES
        if task in (None, family.task) and own in (None, family.own)
        for name in family.names()
    ]


def catalogue(task: TaskName = "classification") -> dict[str, AnyRecipe]:
    """Return all recipes for a task, by name, except the ones built from the user's images."""
    families = (family for family in FAMILIES if family.task == task and not family.own)
    recipes = [recipe for family in families for recipe in family.recipes()]
    if task == "classification":  # each small network on both of its data sets
        nets = [*cifar_names(), *imagenet_names()]
        recipes.sort(key=lambda recipe: nets.index(recipe.name.split("-", 1)[1]))
    return {recipe.name: recipe for recipe in recipes}


def recipe(
    name: str, *, data: str | Path | None = None, weights: str | Path | None = None
) -> Recipe:
    """Return the classifier's recipe `name`: `<data>-<model>`, such as "cifar10-resnet56".

    "own-*" recipes are made for the images in the folder, or at the URL, `data`. With `weights`, a
    model file or run folder, the recipe is adapted to start from them. `with_` changes fields of
    the recipe. Raise ValueError, with the nearest name, if there is no such recipe.
    """
    must_be_known("recipe", name, recipe_names("classification"))
    opened = open_recipe(name, inputs_at(data, weights))
    assert isinstance(opened, Recipe)
    return opened


def detection_recipe(
    name: str, *, data: str | Path | None = None, weights: str | Path | None = None
) -> DetectionRecipe:
    """Return the detector's recipe `name`: `<data>-<trunk>-c4`, such as "coco-resnet50-c4".

    The arguments are those of `recipe`; "own-detection-*" recipes are made for images with boxes.
    """
    must_be_known("detector's recipe", name, recipe_names("detection"))
    opened = open_recipe(name, inputs_at(data, weights))
    assert isinstance(opened, DetectionRecipe)
    return opened


def must_be_known(what: str, name: str, names: Sequence[str]) -> None:
    """Raise ValueError, with the nearest name, unless `name` is among the `names` of a `what`."""
    if name not in names:
        raise ValueError(unknown_name(what, name, names))


def open_recipe(name: str, inputs: Inputs, changes: Sequence[str] = ()) -> AnyRecipe:
    """Return the recipe `name` for `inputs`, with KEY=VALUE changes."""
    must_be_known("recipe", name, recipe_names())
    weights = read_weights(inputs, inputs.weights) if inputs.weights else None
    return any_recipe(name, data=inputs, weights=weights).with_changes(changes)


def any_recipe(
    name: str, *, data: str | Location | Inputs | None = None, weights: Weights | None = None
) -> AnyRecipe:
    """Return the recipe `name` of a classifier or a detector, given weights that were read."""
    must_be_known("recipe", name, recipe_names())
    family = next(family for family in FAMILIES if name in family.names())
    if family.task == "classification" and not isinstance(weights, Model | None):
        raise ValueError(f"{name} trains a classifier: it cannot start from a detector")
    model = name.removeprefix(family.prefix).removesuffix(family.suffix)
    config = config_named(model)
    if family.own:
        made = family.make(model, config, inputs_at(data), weights)
    else:
        made = family.make(model, config)
    if weights is None or made.weights is not None:
        return made
    if isinstance(made, DetectionRecipe):
        return fit_detector_to_weights(made, weights)
    assert isinstance(weights, Model)
    return fit_to_weights(made, weights)
