"""The catalogue: every recipe by its name, `<data>-<model>`."""

from pathlib import Path
from typing import TYPE_CHECKING

from reslab.recipes.cifar10 import cifar10_recipe
from reslab.recipes.digits import digits_recipe
from reslab.recipes.imagenet import imagenet_recipe
from reslab.train.folder import RunFolder
from reslab.train.recipe import Recipe, RunRecipe
from reslab.words import unknown

if TYPE_CHECKING:
    from reslab.models.weights import Model

OWN = "own-"


def catalogue() -> dict[str, Recipe]:
    """All recipes that need no look at the pictures: CIFAR's nets on both small sets, Table 1's."""
    from reslab.models.names import cifar_models, imagenet_models

    recipes = {}
    for model, config in cifar_models().items():
        for make in (digits_recipe, cifar10_recipe):
            recipe = make(model, config)
            recipes[recipe.name] = recipe
    for model, config in imagenet_models().items():
        recipe = imagenet_recipe(model, config)
        recipes[recipe.name] = recipe
    return recipes


def own_names() -> list[str]:
    """The recipes for a folder of one's own, whose numbers come from its pictures."""
    from reslab.models.names import imagenet_models

    return [OWN + model for model in imagenet_models()]


def recipe(name: str, *, data: str | Path | None = None, weights: "Model | None" = None) -> Recipe:
    """The recipe of that name; ValueError with the nearest name otherwise.

    `own-*` looks at the folder `data`. With `weights` the recipe starts from them.
    """
    from reslab.train.origin import starting_from

    if name in own_names():
        return _own(name.removeprefix(OWN), data, weights)
    recipes = catalogue()
    if name not in recipes:
        raise ValueError(unknown("recipe", name, [*recipes, *own_names()]))
    return starting_from(recipes[name], weights) if weights else recipes[name]


def recipe_in(folder: RunFolder) -> RunRecipe:
    """The recipe of a run, whatever it trains."""
    task = folder.task()
    if task == "classification":
        return folder.recipe()
    raise ValueError(f"{folder.path} holds a run of another task, {task}")


def _own(model: str, data: str | Path | None, weights: "Model | None") -> Recipe:
    from reslab.data.folder import open_pictures
    from reslab.models.names import config_named
    from reslab.recipes.own import own_recipe

    if data is None:
        raise ValueError(f"{OWN}{model} is made from your pictures: name their folder with --data")
    return own_recipe(model, config_named(model), open_pictures(Path(data)).train, weights)
