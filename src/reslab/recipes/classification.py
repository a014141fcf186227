"""Recipes of classifiers: CIFAR-10 (Sec. 4.2), digits, ImageNet (Sec. 3.4)."""

from reslab.data.augment import PadAndCrop, ScaleCrop
from reslab.models.config import ResNetConfig
from reslab.training.recipe import PhotographSettings, Plateau, Recipe, Warmup

DEEP_BLOCKS = 18  # n of the 110-layer net, the first at which 0.1 "is slightly too large"


def cifar10_recipe(model: str, config: ResNetConfig) -> Recipe:
    """Train a 6n+2-layer net as in the paper; the defaults are the numbers of Sec. 4.2."""
    deep = config.blocks[0] >= DEEP_BLOCKS
    return Recipe(
        name=f"cifar10-{model}",
        model=config,
        data="cifar10",
        warmup=Warmup() if deep else None,
    )


def digits_recipe(model: str, config: ResNetConfig) -> Recipe:
    """Train as in Sec. 4.2, but for 600 iterations: 53 epochs of 1,437 digits.

    All depths warm up: so short a run cannot wait for a deep plain net to recover from a rate of
    0.1 in its first iterations. Mirrored digits are not digits, so there is no flipping, and for
    16x16 images the padding is halved, as the side is.
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
    """Train on ImageNet as in the paper: 60e4 iterations with 256 images on eight GPUs."""
    return Recipe(
        name=f"imagenet-{model}",
        model=config,
        data="pictures",
        pictures=PhotographSettings(colour="imagenet"),
        augmentation=ScaleCrop(),
        iterations=600_000,
        batch_size=256,
        virtual_gpus=8,  # as in the authors' release: 32 images on each
        drops=(),
        plateau=Plateau(),
        eval_every=5000,
    )
