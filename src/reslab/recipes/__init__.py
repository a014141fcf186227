"""The catalogue of recipes: classifiers as `<data>-<model>`, detectors as `<data>-<trunk>-c4`.

A name is looked up in the table FAMILIES, and only its recipe is built. This needs no torch, which
is imported only for recipes that are made from the user's images or adapted to weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reslab.detection.recipe import DetectionRecipe
from reslab.errors import unknown_name
from reslab.models.config import ResNetConfig, cifar_names, config_named, imagenet_names
from reslab.recipes.classification import cifar10_recipe, digits_recipe, imagenet_recipe
from reslab.recipes.detection import coco_recipe, digit_scenes_recipe, voc_recipe
from reslab.training.recipe import Recipe, RunRecipe, TaskName

if TYPE_CHECKING:
    from reslab.data.location import Location
    from reslab.detection.setup import Weights
    from reslab.training.setup import Inputs

AnyRecipe = Recipe | DetectionRecipe
# the residual nets for the user's small images, and the trunks of small detectors
SMALL_NETS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
TRUNKS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
C4 = "-c4"  # regions are pooled from the feature map of conv4_x


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
    make: Callable[[str, ResNetConfig], AnyRecipe] | None  # None: made from the user's images

    @property
    def own(self) -> bool:
        return self.make is None

    @property
    def suffix(self) -> str:
        return C4 if self.task == "detection" else ""

    def names(self) -> list[str]:
        return [f"{self.prefix}{model}{self.suffix}" for model in self.models]

    def recipes(self) -> list[AnyRecipe]:
        """Build all recipes; there are none if they are made from the user's images."""
        if self.make is None:
            return []
        return [self.make(model, config_named(model)) for model in self.models]


FAMILIES = (
    Family("classification", "digits-", cifar_names(), digits_recipe),
    Family("classification", "cifar10-", cifar_names(), cifar10_recipe),
    Family("classification", "imagenet-", imagenet_names(), imagenet_recipe),
    Family("classification", "own-", SMALL_NETS, None),
    Family("classification", "own-", imagenet_names(), None),
    Family("detection", "digit-scenes-", SMALL_NETS, digit_scenes_recipe),
    Family("detection", "coco-", TRUNKS, coco_recipe),
    Family("detection", "voc07+12-", TRUNKS, voc_recipe),
    Family("detection", "own-detection-", TRUNKS, None),
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
    opened = recipe_from(name, data, weights)
    assert isinstance(opened, Recipe)
    return opened


def detection_recipe(
    name: str, *, data: str | Path | None = None, weights: str | Path | None = None
) -> DetectionRecipe:
    """Return the detector's recipe `name`: `<data>-<trunk>-c4`, such as "coco-resnet50-c4".

    The arguments are those of `recipe`; "own-detection-*" recipes are made for images with boxes.
    """
    must_be_known("detector's recipe", name, recipe_names("detection"))
    opened = recipe_from(name, data, weights)
    assert isinstance(opened, DetectionRecipe)
    return opened


def must_be_known(what: str, name: str, names: Sequence[str]) -> None:
    """Raise ValueError, with the nearest name, unless `name` is among the `names` of a `what`."""
    if name not in names:
        raise ValueError(unknown_name(what, name, names))


def recipe_from(name: str, data: str | Path | None, weights: str | Path | None) -> AnyRecipe:
    """Return the recipe `name` for the data and weights at these paths.

    torch is imported only if one is given.
    """
    if data is None and weights is None:
        return any_recipe(name)
    from reslab.training.setup import inputs_at

    return open_recipe(name, inputs_at(data, weights))


def open_recipe(name: str, inputs: "Inputs", changes: Sequence[str] = ()) -> AnyRecipe:
    """Return the recipe `name` for `inputs`, with KEY=VALUE changes."""
    must_be_known("recipe", name, recipe_names())
    weights = None
    if inputs.weights:
        from reslab.detection.setup import read_weights

        weights = read_weights(inputs, inputs.weights)
    return any_recipe(name, data=inputs, weights=weights).with_changes(changes)


def any_recipe(
    name: str,
    *,
    data: "str | Location | Inputs | None" = None,
    weights: "Weights | None" = None,
) -> AnyRecipe:
    """Return the recipe `name` of a classifier or a detector, given weights that were read."""
    must_be_known("recipe", name, recipe_names())
    family = next(family for family in FAMILIES if name in family.names())
    model = name.removeprefix(family.prefix).removesuffix(family.suffix)
    config = config_named(model)
    if family.make is not None and weights is None:
        return family.make(model, config)
    from reslab.recipes.own import adapted, made_from_images, must_fit_task

    must_fit_task(name, family.task, weights)
    if family.make is None:
        made = made_from_images(family.task, model, config, data, weights)
    else:
        made = family.make(model, config)
    return adapted(made, weights)
