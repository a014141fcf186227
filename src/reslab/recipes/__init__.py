"""The catalogue: classifiers' recipes by `<data>-<model>`, detectors' by `<data>-<trunk>-c4`."""

from typing import TYPE_CHECKING

from reslab.data.location import Location, parse_location, to_folder
from reslab.detection.recipe import DetectionRecipe
from reslab.errors import unknown_name
from reslab.recipes.classification import cifar10_recipe, digits_recipe, imagenet_recipe
from reslab.recipes.detection import coco_recipe, digit_scenes_recipe, voc_recipe
from reslab.training.folder import RunFolder
from reslab.training.recipe import Recipe

if TYPE_CHECKING:
    from reslab.detection.initial import Weights
    from reslab.models.config import ResNetConfig
    from reslab.models.model_file import Model


AnyRecipe = Recipe | DetectionRecipe

OWN, OWN_DETECTION = "own-", "own-detection-"
# the residual nets that detectors are offered on
SMALL_TRUNKS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
TRUNKS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
C4 = "-c4"  # the regions are cut out of the map of conv4_x


def catalogue() -> dict[str, Recipe]:
    """All recipes of classifiers that need no look at the images: CIFAR's nets on both small
    sets, Table 1's on ImageNet."""
    from reslab.models.config import cifar_models, imagenet_models

    recipes = []
    for model, config in cifar_models().items():
        recipes += [make(model, config) for make in (digits_recipe, cifar10_recipe)]
    recipes += [imagenet_recipe(model, config) for model, config in imagenet_models().items()]
    return {recipe.name: recipe for recipe in recipes}


def detectors() -> dict[str, DetectionRecipe]:
    """All recipes of detectors that need no look at the images."""
    from reslab.models.config import config_named

    recipes = [digit_scenes_recipe(model, config_named(model)) for model in SMALL_TRUNKS]
    for make in (coco_recipe, voc_recipe):
        recipes += [make(model, config_named(model)) for model in TRUNKS]
    return {recipe.name: recipe for recipe in recipes}


def own_recipe_names() -> list[str]:
    """The recipes for a folder of one's own, whose numbers come from its images."""
    from reslab.models.config import imagenet_models

    return [OWN + model for model in imagenet_models()]


def own_detector_names() -> list[str]:
    """Those for a folder of one's own boxes."""
    return [OWN_DETECTION + model + C4 for model in TRUNKS]


def any_recipe(
    name: str, *, data: str | Location | None = None, weights: "Weights | None" = None
) -> AnyRecipe:
    """The recipe of that name, of a classifier or of a detector; see `recipe`."""
    if name in {*detectors(), *own_detector_names()}:
        return detection_recipe(name, data=data, weights=weights)
    return recipe(name, data=data, weights=weights)


def recipe(
    name: str, *, data: str | Location | None = None, weights: "Weights | None" = None
) -> Recipe:
    """The classifier's recipe of that name; ValueError with the nearest name otherwise.

    `own-*` looks at the folder `data`. With `weights` the recipe starts from them.
    """
    from reslab.models.model_file import Model
    from reslab.training.origin import fit_to_weights

    if not isinstance(weights, Model | None):
        raise ValueError(f"{name} trains a classifier: it cannot start from a detector")
    if name in own_recipe_names():
        return _own(name, data, weights)
    recipes = catalogue()
    if name not in recipes:
        known = [*recipes, *own_recipe_names(), *detectors(), *own_detector_names()]
        raise ValueError(unknown_name("recipe", name, known))
    return fit_to_weights(recipes[name], weights) if weights else recipes[name]


def detection_recipe(
    name: str, *, data: str | Location | None = None, weights: "Weights | None" = None
) -> DetectionRecipe:
    """The detector's recipe of that name; the same otherwise."""
    from reslab.detection.initial import fit_detector_to_weights

    recipes = detectors()
    if name in own_detector_names():
        found = _own_detector(name, data)
    elif name in recipes:
        found = recipes[name]
    else:
        raise ValueError(unknown_name("detector's recipe", name, [*recipes, *own_detector_names()]))
    return fit_detector_to_weights(found, weights) if weights else found


def network_of(recipe: AnyRecipe) -> "ResNetConfig":
    """What a recipe trains, or the trunk of it."""
    return recipe.model if isinstance(recipe, Recipe) else recipe.model.trunk


def recipe_in(folder: RunFolder) -> AnyRecipe:
    """The recipe of a run, whatever it trains."""
    detector = folder.task() == "detection"
    return folder.recipe_as(DetectionRecipe) if detector else folder.recipe()


def _own(name: str, data: str | Location | None, weights: "Model | None") -> Recipe:
    from reslab.data.folder import open_folder
    from reslab.models.config import config_named
    from reslab.recipes.own import own_recipe

    if data is None:
        raise ValueError(f"{name} is made from your images: name their folder with --data")
    model = name.removeprefix(OWN)
    return own_recipe(model, config_named(model), open_folder(parse_location(data)).train, weights)


def _own_detector(name: str, data: str | Location | None) -> DetectionRecipe:
    from reslab.data.boxes.folder import open_detection
    from reslab.models.config import config_named
    from reslab.recipes.detection import own_detection_recipe

    if data is None:
        raise ValueError(f"{name} is made from your boxes: name a COCO or VOC folder with --data")
    model = name.removeprefix(OWN_DETECTION).removesuffix(C4)
    folder = to_folder(parse_location(data), f"{name} needs")
    return own_detection_recipe(model, config_named(model), open_detection(folder).train)
