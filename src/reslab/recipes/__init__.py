"""The catalogue: every recipe by its name, `<data>-<model>`."""

from reslab.recipes.cifar10 import cifar10_recipe
from reslab.recipes.digits import digits_recipe
from reslab.train.recipe import Recipe
from reslab.words import unknown


def catalogue() -> dict[str, Recipe]:
    """All recipes: plain and residual nets of every CIFAR depth, on both sets."""
    from reslab.models.names import cifar_models

    recipes = {}
    for model, config in cifar_models().items():
        for make in (digits_recipe, cifar10_recipe):
            recipe = make(model, config)
            recipes[recipe.name] = recipe
    return recipes


def recipe(name: str) -> Recipe:
    """The recipe of that name; ValueError with the nearest name otherwise."""
    recipes = catalogue()
    if name not in recipes:
        raise ValueError(unknown("recipe", name, recipes))
    return recipes[name]
