"""A detector before its first update: trained weights where there are any, new layers drawn."""

from pathlib import Path

from torch import Tensor, nn

from reslab.data.boxes.sets import DetectionSet
from reslab.data.sampler import Stream, make_generator
from reslab.detection.model import Detector, load_detector
from reslab.detection.network import FasterRCNN, build_detector
from reslab.detection.recipe import DetectionRecipe
from reslab.models.batchnorm import at_initial_scale, train_mode
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model, load_model
from reslab.runtime.files import sha256_of
from reslab.training.origin import fitted
from reslab.training.setup import Inputs
from reslab.training.task import task_of

OF_CLASSES = ("classifier.", "regressor.")

Weights = Model | Detector


def load_weights(path: str | Path) -> Weights:
    """Load what a detector's training can start from: a classifier's model file or a detector's."""
    return load_detector(path) if task_of(path) == "detection" else load_model(path)


def read_weights(inputs: Inputs, path: Path) -> Weights:
    """Load the same, once for all that ask these inputs."""
    load = load_detector if task_of(path) == "detection" else load_model
    return inputs.read(load, path)


def trunk_of(weights: Weights) -> ResNetConfig:
    """The network whose residual part the weights are of."""
    return weights.net.config.trunk if isinstance(weights, Detector) else weights.net.config


def fit_detector_to_weights(recipe: DetectionRecipe, weights: Weights) -> DetectionRecipe:
    """`recipe` for training that starts from `weights`: their layout, their digest.

    ValueError if these are weights of another network.
    """
    trunk = fitted(recipe.model.trunk, trunk_of(weights), recipe.name)
    changes = {
        "model": recipe.model.model_copy(update={"trunk": trunk}),
        "weights": sha256_of(weights.net.state_dict()),
    }
    return DetectionRecipe.from_json(recipe.model_copy(update=changes).model_dump_json())


def must_match_trunk(recipe: DetectionRecipe, weights: Weights | None) -> None:
    """ValueError if `recipe` cannot start from `weights`, or needs some and there are none."""
    if weights is None:
        if recipe.model.norm == "group" and not recipe.fixed_stages and recipe.weights is None:
            return
        raise ValueError(
            f"{recipe.name} starts from trained weights, whose batch norm it keeps: name them with "
            "--weights, or set model.norm=group and fixed_stages=0 to start from nothing"
        )
    found = sha256_of(weights.net.state_dict())
    if found != recipe.weights:
        raise ValueError(
            f"the weights have the SHA-256 {found}, the recipe starts from {recipe.weights}"
        )
    if recipe.model.norm == "frozen":
        if never_trained(weights.net) and isinstance(weights, Model) and not weights.folded:
            raise ValueError(
                "the weights' batch norm has no statistics, for they were never trained: nothing "
                "to keep; model.norm=group and fixed_stages=0 start from nothing"
            )
    elif norm_is_folded(weights):
        raise ValueError(
            f"model.norm={recipe.model.norm}: in these weights batch norm was folded into the "
            "convolutions, so it can only be kept: model.norm=frozen"
        )


def norm_is_folded(weights: Weights) -> bool:
    """Whether batch norm went into the convolutions; a detector kept it so if it started so."""
    return weights.folded if isinstance(weights, Model) else never_trained(weights.net)


def never_trained(net: nn.Module) -> bool:
    """Whether the means in batch norm, if there is any, are what they begin with: all 0."""
    means = [it for name, it in net.state_dict().items() if name.endswith("running_mean")]
    return bool(means) and not any(bool(mean.any()) for mean in means)


def initial_detector(
    recipe: DetectionRecipe, seed: int, weights: Weights | None, train: DetectionSet
) -> FasterRCNN:
    """The network of the recipe. A classifier gives it the residual part; a detector what else
    fits, the layers that name classes only if its classes are these."""
    net = build_detector(recipe.model, make_generator(seed, Stream.INITIALISATION))
    if weights is not None:
        given = weights.net.state_dict()
        if (weights.ids, weights.classes) != (train.ids, train.classes):
            given = {name: it for name, it in given.items() if not name.startswith(OF_CLASSES)}
        net.load_state_dict(
            net.state_dict() | {name: given[name] for name in load_matching(net, given)}
        )
    if isinstance(weights, Model):
        at_initial_scale(net)
    return net


def load_matching(net: FasterRCNN, given: dict[str, Tensor]) -> list[str]:
    """The weights that the network takes over; ValueError if the residual part does not fit."""
    state = net.state_dict()
    residual = [name for name in state if name.startswith(("stem.", "stages."))]
    for name in residual:
        if name not in given or given[name].shape != state[name].shape:
            raise ValueError(f"the weights are of another net: {name} does not fit")
    others = state.keys() - residual
    fitting = [n for n in given if n in others and given[n].shape == state[n].shape]
    return residual + fitting


def trainable_parts(net: FasterRCNN, recipe: DetectionRecipe) -> list[nn.Module]:
    """The parts whose weights the recipe changes."""
    free = net.trunk[recipe.fixed_stages + 1 if recipe.fixed_stages else 0 :]
    regions = [net.stages[-1], net.classifier, net.regressor]
    match recipe.stage:
        case None:
            return [*free, net.proposals, *regions]
        case 1:
            return [*free, net.proposals]
        case 2:
            return [*free, *regions]
        case 3:
            return [net.proposals]
        case 4:
            return regions


def detector_train_mode(net: FasterRCNN, recipe: DetectionRecipe) -> None:
    """Put the layers that learn into training mode; batch norm is a fixed map."""
    net.requires_grad_(False)
    for part in trainable_parts(net, recipe):
        part.requires_grad_(True)
    train_mode(net, keep_statistics=True)
