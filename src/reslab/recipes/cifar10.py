"""Sec. 4.2: CIFAR-10."""

from reslab.models.resnet import ResNetConfig
from reslab.train.recipe import Recipe
from reslab.train.sections import Warmup

DEEP_BLOCKS = 18  # n of the 110-layer net, the first for which 0.1 "is slightly too large"


def cifar10_recipe(model: str, config: ResNetConfig) -> Recipe:
    """The paper's training of a 6n+2-layer net; a recipe's defaults are this section's numbers."""
    deep = config.blocks[0] >= DEEP_BLOCKS
    return Recipe(
        name=f"cifar10-{model}",
        model=config,
        data="cifar10",
        warmup=Warmup() if deep else None,
    )
