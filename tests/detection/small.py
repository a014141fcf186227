"""Small detectors, recipes and folders, for training in about a second."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from reslab.data.boxes.digit_scenes import digit_scenes, save_scenes
from reslab.data.boxes.sets import Detections, DetectionSplits
from reslab.detection.config import DetectorConfig
from reslab.detection.inference import Detector
from reslab.detection.network import (
    FasterRCNN,
    build_detector,
)
from reslab.detection.recipe import DetectionRecipe, InferenceConfig
from reslab.models.batchnorm import norms_of
from reslab.models.config import ResNetConfig
from reslab.models.layers import channels_last
from reslab.models.model_file import Model, model_bytes
from reslab.models.preprocessing import Preprocessing, minus_mean
from reslab.models.resnet import build_resnet
from reslab.recipes.detection import digit_scenes_recipe

SMALL = ResNetConfig(
    stem="cifar", block="basic", blocks=(1, 1, 1), widths=(4, 8, 8), classes=10, shortcut="A"
)
LARGE = ResNetConfig(
    stem="imagenet", block="bottleneck", blocks=(1, 1, 1, 1), widths=(4, 4, 8, 8), classes=10,
    shortcut="B",
)  # fmt: skip
SCENES = digit_scenes(train=6, test=3)
SHORT = [
    "model.width=8", "shorter=[32]", "longest=32", "search.shorter=32", "search.longest=32",
    "sampling.anchors=16", "sampling.before=60", "sampling.proposals=20", "sampling.regions=8",
    "search.before=60", "search.proposals=10", "iterations=6", "batch_size=2", "eval_every=4",
    "checkpoint_every=2", "log_every=1", "watched=2",
]  # fmt: skip


def short_recipe(*changes: str) -> DetectionRecipe:
    """Return a recipe of six iterations on a few scenes."""
    return digit_scenes_recipe("small", SMALL).with_changes([*SHORT, *changes])


def scatter_statistics(net: nn.Module, rng: Generator) -> None:
    """Randomise batch norm as if after training, so that no layer is the identity."""
    for norm in norms_of(net):
        for values, low in ((norm.running_mean, -0.3), (norm.bias.data, -0.3)):
            assert isinstance(values, Tensor)
            values.uniform_(low, 0.3, generator=rng)
        for values in (norm.running_var, norm.weight.data):
            assert isinstance(values, Tensor)
            values.uniform_(0.5, 1.5, generator=rng)


def classifier(config: ResNetConfig = SMALL, seed: int = 7, *, folded: bool = False) -> Model:
    """Build a classifier that looks trained."""
    rng = torch.Generator().manual_seed(seed)
    net = build_resnet(config, rng)
    if not folded:
        scatter_statistics(net, rng)
    names = tuple(f"class {number}" for number in range(config.classes))
    grey = minus_mean(torch.full((3, 1, 1), 110.0))
    return Model(net.eval(), names, grey, {}, [], folded=folded)


def classifier_file(folder: Path, model: Model | None = None) -> Path:
    out = folder / "classifier.safetensors"
    out.write_bytes(model_bytes(model or classifier()))
    return out


def network(config: DetectorConfig, seed: int = 3) -> FasterRCNN:
    rng = torch.Generator().manual_seed(seed)
    net = build_detector(config, rng)
    scatter_statistics(net, rng)
    return net.eval().requires_grad_(False)


def detector(
    *, seed: int = 3, search: InferenceConfig | None = None, sure: float = 150, **config: object
) -> Detector:
    """Build an untrained detector for the scenes' classes with widely spread scores."""
    sizes = {"sizes": (8, 14, 24), "ratios": (1.0, 1.6), "width": 8, "pooled": 8}
    full = DetectorConfig.model_validate({"trunk": SMALL, "classes": 10} | sizes | config)
    net = network(full, seed)
    net.classifier.weight.mul_(sure)
    net.regressor.weight.mul_(30)
    grey = torch.full((3, 1, 1), 110.0)
    return Detector(
        channels_last(net), SCENES.train.classes, SCENES.train.ids,
        Preprocessing(grey, grey / 2),
        search or InferenceConfig(shorter=48, longest=96, smallest=4, proposals=30), {}, [],
    )  # fmt: skip


def scenes_folder(folder: Path, sets: DetectionSplits = SCENES) -> Path:
    """Write scenes to a folder in COCO's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    save_scenes(folder, sets, lambda _: None)
    return folder


def own_recipe(*changes: str) -> DetectionRecipe:
    """Return a recipe for a folder of scenes."""
    return short_recipe("data=boxes", *changes)


def renamed(
    sets: DetectionSplits, classes: tuple[str, ...], ids: tuple[str, ...]
) -> DetectionSplits:
    return DetectionSplits(
        *(replace(part, classes=classes, ids=ids) for part in (sets.train, sets.test))
    )


def same(one: Detections, other: Detections) -> bool:
    """Return whether detections are equal to the last bit."""
    return (
        torch.equal(one.boxes, other.boxes)
        and torch.equal(one.scores, other.scores)
        and torch.equal(one.labels, other.labels)
    )
