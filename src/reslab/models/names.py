"""The names of the paper's networks; the one place where a name becomes a configuration."""

from reslab.models.resnet import (
    CIFAR_DEPTHS,
    IMAGENET_STAGES,
    Option,
    ResNetConfig,
    cifar,
    imagenet,
)
from reslab.words import unknown

OPTIONS: tuple[Option, ...] = ("A", "B", "C")


def cifar_models() -> dict[str, ResNetConfig]:
    """Sec. 4.2: plain and residual nets of every depth; option A unless suffixed."""
    models = {}
    for depth in CIFAR_DEPTHS:
        models[f"plain{depth}"] = cifar(depth, None)
        models[f"resnet{depth}"] = cifar(depth)
        models |= {f"resnet{depth}-{option}": cifar(depth, option) for option in OPTIONS}
    return models


def imagenet_models() -> dict[str, ResNetConfig]:
    """Table 1: option B unless suffixed; `-3x3` moves a bottleneck's stride to its 3x3."""
    models = {}
    for depth, (block, _) in IMAGENET_STAGES.items():
        if block == "basic":
            models[f"plain{depth}"] = imagenet(depth, None)
        models[f"resnet{depth}"] = imagenet(depth)
        models |= {f"resnet{depth}-{option}": imagenet(depth, option) for option in OPTIONS}
        if block == "bottleneck":
            other = imagenet(depth).model_copy(update={"stride_on": "3x3"})
            models[f"resnet{depth}-3x3"] = other
    return models


def all_models() -> dict[str, ResNetConfig]:
    """Every network that has a name."""
    return cifar_models() | imagenet_models()


def config_named(name: str) -> ResNetConfig:
    """The configuration of a named network; ValueError with the nearest name otherwise."""
    models = all_models()
    if name not in models:
        raise ValueError(unknown("model", name, models))
    return models[name]
