"""Sec. 3.4: ImageNet."""

from reslab.data.augment import ScaleCrop
from reslab.models.resnet import ResNetConfig
from reslab.train.recipe import Recipe
from reslab.train.sections import Pictures, Plateau


def imagenet_recipe(model: str, config: ResNetConfig) -> Recipe:
    """The paper's training on ImageNet: 60e4 iterations of 256 on eight GPUs."""
    return Recipe(
        name=f"imagenet-{model}",
        model=config,
        data="pictures",
        pictures=Pictures(colour="imagenet"),
        augmentation=ScaleCrop(),
        iterations=600_000,
        batch_size=256,
        virtual_gpus=8,  # the authors' release: 32 pictures on each
        drops=(),
        plateau=Plateau(),
        eval_every=5000,
    )
