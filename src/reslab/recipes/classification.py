"""Sec. 4.2: CIFAR-10."""

from reslab.data.augment import PadAndCrop, ScaleCrop
from reslab.models.config import ResNetConfig
from reslab.training.recipe import PhotographSettings, Plateau, Recipe, Warmup

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


def digits_recipe(model: str, config: ResNetConfig) -> Recipe:
    """Sec. 4.2 in 600 iterations: 53 epochs of 1,437 digits.

    All depths warm up: so short a run cannot wait for a deep plain net to recover from a rate of
    0.1 in its first iterations. Digits have a hand, so they are not flipped, and on 16x16 the
    crop's padding is halved with the side.
    """
    return Recipe(
        name=f"digits-{model}",
        model=config,
        data="digits",
        augmentation=PadAndCrop(pad=2, flip=False),
        iterations=600,
        warmup=Warmup(cap=300),
        recompute_bn=50,
        eval_every=50,
        checkpoint_every=50,
    )


def imagenet_recipe(model: str, config: ResNetConfig) -> Recipe:
    """The paper's training on ImageNet: 60e4 iterations of 256 on eight GPUs."""
    return Recipe(
        name=f"imagenet-{model}",
        model=config,
        data="pictures",
        pictures=PhotographSettings(colour="imagenet"),
        augmentation=ScaleCrop(),
        iterations=600_000,
        batch_size=256,
        virtual_gpus=8,  # the authors' release: 32 images on each
        drops=(),
        plateau=Plateau(),
        eval_every=5000,
    )
