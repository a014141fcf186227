"""Parts of a run that are the user's own: a network, image sets, an optimizer.

A recipe cannot describe them. It records what was given as `Deviations`, which distinguish runs and
are compared when a run is resumed, and the parts are given again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from reslab.data.augment import PadAndCrop
from reslab.data.datasets import EncodedImages, FolderSplits, ImagesInMemory, MemorySplits
from reslab.evaluation.score_cache import digest_set
from reslab.models.batchnorm import norms_of
from reslab.models.layout import DIGITS, describe_net, must_have_values
from reslab.models.resnet import build_resnet
from reslab.runtime.device import Device
from reslab.runtime.events import silent
from reslab.runtime.files import sha256_of
from reslab.training.own_optimizer import BuildOptimizer, describe_optimizer
from reslab.training.recipe import Deviations, Recipe, label_of

OwnSets = MemorySplits | FolderSplits


@dataclass(frozen=True)
class OwnParts:
    """Parts of a run given by the user; None stands for the recipe's own part.

    `net` maps preprocessed images [B, 3, H, W] to logits [B, classes], and is trained in place.
    `optimizer` builds a torch optimizer for the network passed to it.
    """

    net: nn.Module | None = None
    data: OwnSets | None = None
    optimizer: BuildOptimizer | None = None

    @property
    def names(self) -> list[str]:
        """The names of the given parts, as in `Deviations`."""
        parts = {"net": self.net, "data": self.data, "optimizer": self.optimizer}
        return [name for name, part in parts.items() if part is not None]


def with_own_parts(recipe: Recipe, own: OwnParts, device: Device) -> Recipe:
    """Return the recipe of a run with the user's own parts; raise ValueError if they do not fit.

    A given network is moved to the device.
    """
    if not own.names:
        return recipe
    if device.processes.count > 1:
        raise ValueError(
            f"a run with {listed(own.names)} of your own has one process, not "
            f"{device.processes.count}"
        )
    deviations, data = recipe.deviations, recipe.data
    if own.net is not None:
        if recipe.weights is not None:
            raise ValueError("weights are for the recipe's network: load them into your net")
        if recipe.recompute != "none":
            raise ValueError(
                f"recompute {recipe.recompute!r} is for the recipe's network: set recompute=none"
            )
        must_be_trainable(own.net)
        must_have_values(own.net)
        deviations = with_line(deviations, net=describe_net(own.net.to(device.torch_device)))
    if own.data is not None:
        must_fit_recipe(recipe, own.data)
        deviations = with_line(deviations, data=describe_sets(own.data))
        data = "own" if isinstance(own.data.train, ImagesInMemory) else data
    if own.optimizer is not None:
        net = build_resnet(recipe.model) if own.net is None else own.net
        net = net.to(device.torch_device)
        deviations = with_line(deviations, optimizer=describe_optimizer(net, own.optimizer))
    name = own_name(recipe, deviations)
    changed = recipe.model_copy(update={"name": name, "deviations": deviations, "data": data})
    return Recipe.from_json(changed.model_dump_json())


def own_name(recipe: Recipe, deviations: Deviations) -> str:
    """Return the recipe's name with the labels of own parts instead of its data set and network."""
    data, dash, net = recipe.name.partition("-")
    if data != recipe.data or not dash:  # already renamed
        return recipe.name
    return "-".join(
        label_of(line) if line else name
        for line, name in ((deviations.data, data), (deviations.net, net))
    )


def with_line(deviations: Deviations, **line: str) -> Deviations:
    return deviations.model_copy(update=line)


def must_have_parts(recipe: Recipe, own: OwnParts, out: Path) -> None:
    """Raise ValueError if a run, in the folder `out`, has own parts that were not given again."""
    if missing := [part for part in recipe.deviations.parts if part not in own.names]:
        lines = dict(recipe.deviations)
        labels = [f"{part} ({label_of(lines[part])})" for part in missing]
        raise ValueError(
            f"{out} is trained with {listed(labels)} of your own, which no recipe holds: resume it "
            f"with {recipe.deviations.resume_command(out)}"
        )


def listed(words: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


@contextmanager
def own_randomness(own: OwnParts, device: Device) -> Iterator[None]:
    """Return a context in which a run with own parts leaves the global generators unchanged.

    Such a run seeds torch's global generators for every mini-batch, because own layers and
    optimizers may use them.
    """
    if not own.names:
        yield
        return
    gpus = [device.torch_device] if device.torch_device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        yield


def must_be_trainable(net: nn.Module) -> None:
    """Raise ValueError for a network that a run cannot train or store."""
    name = type(net).__name__
    if not isinstance(net, nn.Module):
        raise ValueError(f"net is a {name}, not a torch.nn.Module")
    if any(is_lazy(weight) for weight in (*net.parameters(), *net.buffers())):
        raise ValueError(f"{name} has lazy layers: call it once, so that they know their shapes")
    if not any(weight.requires_grad for weight in net.parameters()):
        raise ValueError(f"{name} has no parameter that requires a gradient")
    for key, value in net.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} has a state {key!r} that is not a tensor: {value!r:.40}")
    momenta = {norm.momentum for norm in norms_of(net)}
    if len(momenta) > 1 or None in momenta:
        raise ValueError(
            f"{name} has batch-norm layers with the momenta {sorted(map(str, momenta))}: give all "
            "of them the same one"
        )


@torch.no_grad()
def must_give_logits(net: nn.Module, images: Tensor, classes: int) -> None:
    """Raise ValueError unless the network maps images [2, 3, H, W] to logits [2, classes]."""
    name = type(net).__name__
    try:
        logits = net.eval()(images)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} fails for images {list(images.shape)}: {reason}") from error
    if not isinstance(logits, Tensor):
        raise ValueError(f"{name} returns a {type(logits).__name__}, not logits [B, {classes}]")
    if logits.shape != (len(images), classes):
        raise ValueError(
            f"{name} maps images {list(images.shape)} to {list(logits.shape)}, not to "
            f"[{len(images)}, {classes}]: one logit per class"
        )


def facts_of_net(net: nn.Module) -> dict[str, Any]:
    """Return the facts about a network for environment.json: its size and its initial weights."""
    count = sum(weight.numel() for weight in net.parameters())
    return {"parameters": count, "initial_weights": sha256_of(net.state_dict())}


def describe_sets(sets: OwnSets) -> str:
    """Return the sets' line in `Deviations`, with a digest of all images or, if they are encoded,
    of their names and labels."""
    train, test = sets.train, sets.test
    size = "x".join(map(str, train.images.shape[2:])) if isinstance(train, ImagesInMemory) else ""
    digest = sha256(f"{digest_of(train)} {digest_of(test)}".encode()).hexdigest()[:DIGITS]
    return (
        f"{train.name}; {len(train):,} training and {len(test):,} test images"
        f"{f' of {size}' if size else ''} in {len(train.classes)} classes; {digest}"
    )


def digest_of(images: ImagesInMemory | EncodedImages) -> str:
    if isinstance(images, ImagesInMemory):
        return digest_set(images, threads=1, on_event=silent)
    listing = [images.ids, images.classes, *images.files]
    digest = sha256(repr(listing).encode())
    digest.update(images.labels.numpy().data)
    return digest.hexdigest()


def must_fit_recipe(recipe: Recipe, sets: OwnSets) -> None:
    """Raise ValueError if the sets are of another kind than the recipe's, or differ in kind."""
    train, test = sets.train, sets.test
    if len(train) == 0 or len(test) == 0:
        raise ValueError(f"{(test if len(train) else train).name} has no images")
    if train.classes != test.classes:
        raise ValueError(f"{train.name} and {test.name} have different classes")
    if isinstance(train, ImagesInMemory) and isinstance(test, ImagesInMemory):
        if not isinstance(recipe.augmentation, PadAndCrop):
            raise ValueError(
                f"{recipe.name} is for photographs, but the images are in memory: use a recipe "
                "such as cifar10-resnet20"
            )
        if train.images.shape[1:] != test.images.shape[1:]:
            sizes = [list(images.images.shape[1:]) for images in (train, test)]
            raise ValueError(f"training images are {sizes[0]}, test images {sizes[1]}")
    elif isinstance(train, EncodedImages) and isinstance(test, EncodedImages):
        if isinstance(recipe.augmentation, PadAndCrop):
            raise ValueError(
                f"{recipe.name} is for images in memory, but these are encoded: use a recipe "
                "such as imagenet-resnet18"
            )
    else:
        raise ValueError(f"{train.name} and {test.name}: one is in memory, the other encoded")
