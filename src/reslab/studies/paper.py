"""Numbers from the paper, and recipes' deviations from it."""

from reslab.detection.recipe import DetectionRecipe
from reslab.models.config import config_named
from reslab.models.parts import BatchNorm
from reslab.recipes import AnyRecipe
from reslab.recipes.classification import cifar10_recipe, imagenet_recipe
from reslab.recipes.detection import coco_recipe, voc_recipe
from reslab.studies.records import NO_EFFECT
from reslab.training.origin import shape_of
from reslab.training.recipe import Recipe

# Table 6: test error on CIFAR-10 in percent by depth, option A, with augmentation
TABLE_6 = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}
TABLE_6_SPREAD = {110: "6.43 (6.61 ± 0.16, n=5)"}


# the left side of the deviation that states which part the user replaced
OF_THE_PAPER = {"net": "the recipe's", "data": "the paper's", "optimizer": "SGD with momentum"}


def table_6(depth: int) -> str:
    """Return the table's entry for a residual net of `depth` layers, or "" if there is none."""
    if depth in TABLE_6_SPREAD:
        return TABLE_6_SPREAD[depth]
    return f"{TABLE_6[depth]:.2f}" if depth in TABLE_6 else ""


def section(recipe: AnyRecipe) -> str:
    """Return the section of the paper that describes the training in `recipe`."""
    if isinstance(recipe, DetectionRecipe):
        return "App. A"
    return "Sec. 4.2" if recipe.in_memory else "Sec. 3.4"


def deviations(recipe: AnyRecipe) -> list[str]:
    """Return a line `key: paper's value -> recipe's value` for each deviation from the paper."""
    if isinstance(recipe, DetectionRecipe):
        lines = detector_deviations(recipe)
    else:
        lines = classifier_deviations(recipe)
    own = [f"{part}: {OF_THE_PAPER[part]} -> {line}" for part, line in recipe.deviations if line]
    left_out = NO_EFFECT | {f"deviations.{part}" for part in OF_THE_PAPER}
    if recipe.deviations.data:  # its line in `own` says more
        left_out |= {"data"}
    return [*own, *(line for line in lines if line.partition(":")[0] not in left_out)]


def classifier_deviations(recipe: Recipe) -> list[str]:
    """Compare a recipe with the paper's training on ImageNet (photographs) or on CIFAR-10."""
    photographs = not recipe.in_memory
    layout: dict[str, object] = {"zeros": "end", "stride_on": "1x1", "pool": "ceil"}
    layout |= {"norm": BatchNorm(), "stochastic_depth": 0.0, "dropout": 0.0}
    if not photographs:
        layout["shortcut"] = recipe.model.option and "A"
    make = imagenet_recipe if photographs else cifar10_recipe
    return make("", recipe.model.model_copy(update=layout)).differences(recipe)


def detector_deviations(recipe: DetectionRecipe) -> list[str]:
    """Compare a recipe with the paper's baseline on VOC, if it names years, or on COCO.

    The baseline starts from trained weights. Its trunk is the one in `recipe`; only a CIFAR trunk
    is listed as a deviation, from ResNet-101.
    """
    trunk = recipe.model.trunk
    make = voc_recipe if recipe.years else coco_recipe
    paper = make("", trunk).model_copy(update={"weights": recipe.weights or "from ImageNet"})
    lines = paper.differences(recipe)
    if trunk.stem == "cifar":
        paper_trunk = shape_of(config_named("resnet101"))
        lines.insert(0, f"model.trunk: {paper_trunk} -> {shape_of(trunk)}")
    return lines
