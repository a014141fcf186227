"""The paper's CIFAR-10 training made short, for the digits that come with reslab."""

from reslab.data.augment import PadAndCrop
from reslab.models.resnet import ResNetConfig
from reslab.train.recipe import Recipe
from reslab.train.sections import Warmup


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
