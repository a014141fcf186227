"""Open a run's data and weights, once each, and build the classification task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from reslab.data.augment import PadAndCrop
from reslab.data.builtin import open_sets
from reslab.data.datasets import (
    EncodedImages,
    FolderSplits,
    ImageSet,
    ImagesInMemory,
    MemorySplits,
    hold_out,
    notes_of,
    pixel_mean,
)
from reslab.data.folder import read_folder, split_folder
from reslab.data.loader import BadFileLimit, EncodedLoader, InMemoryLoader
from reslab.data.location import Location, parse_location
from reslab.data.small_images import decode_all
from reslab.data.statistics import ALEXNET, measure_statistics
from reslab.models.batchnorm import norms_of
from reslab.models.config import warn_small_map
from reslab.models.layers import channels_last
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing, minus_mean
from reslab.pretrained.locate import located
from reslab.runtime.device import Device
from reslab.runtime.events import Log
from reslab.runtime.threads import cores_for, usable_cores
from reslab.training.classification import ClassificationTask
from reslab.training.initial_net import initial_net
from reslab.training.optimizer import Optimizer, build_sgd
from reslab.training.origin import FILE, InitialState
from reslab.training.own import OwnParts, must_give_logits
from reslab.training.own_optimizer import build_own_optimizer
from reslab.training.recipe import Recipe

CALIBRATION_BATCHES = 50  # mini-batches whose statistics replace the loaded ones
Content = TypeVar("Content")


@dataclass
class Inputs:
    """The paths of a run's data and weights, with a cache so that each is read only once.

    The `own-*` recipes read both before the run does; the run then reuses the same inputs.
    """

    data: Location | None = None
    weights: Path | None = None
    # training images that an own-* recipe is made for, if not those in the data: when a run is
    # trained again, those that it began with
    count: int | None = None
    known: dict[Any, Any] = field(default_factory=dict, repr=False)

    def read(self, reader: Callable[..., Content], *arguments: Any) -> Content:
        """Return `reader(*arguments)`, cached: the reader is called only the first time."""
        key = (reader, *arguments)
        if key not in self.known:
            self.known[key] = reader(*arguments)
        return self.known[key]

    def already_read(self, reader: Callable[..., Content], *arguments: Any) -> Content | None:
        """Return `reader(*arguments)` if it has been read, or else None."""
        return self.known.get((reader, *arguments))


def inputs_at(
    data: "str | Location | Inputs | None",
    weights: str | Path | None = None,
    count: int | None = None,
) -> Inputs:
    """Return the inputs at these paths, or of published weights by name; an `Inputs` unchanged."""
    if isinstance(data, Inputs):
        return data
    place = parse_location(data) if data else None
    return Inputs(place, located(weights) if weights else None, count)


def setup_classification(
    recipe: Recipe,
    seed: int,
    sets: MemorySplits | FolderSplits,
    device: Device,
    origin: InitialState = InitialState(),
    log: Log = lambda text: None,
    own: OwnParts = OwnParts(),
) -> ClassificationTask:
    """Build the task from opened sets; `log` receives notes for the user.

    The network and the optimizer are the recipe's unless `own` has others.

    Raise ValueError if the sets do not fit the recipe.
    """
    train, watched, final = split_sets(recipe, sets)
    must_match_classes(recipe.name, recipe.model.classes, len(train.classes))
    if own.net is None:
        warn_small_map(recipe.model, side_of(recipe, train))
    images = train
    if isinstance(train, EncodedImages):
        for line in notes_of(sets.train, sets.test):
            log(line)
        images = into_memory(recipe, train, device, log)
        origin = device.processes.run_on_first(
            partial(with_statistics, recipe, images, with_names(train, origin), log)
        )
    if len(origin.names) not in (0, len(train.classes)):
        raise ValueError(
            f"{FILE} names {len(origin.names)} classes, the images have "
            f"{len(train.classes)}: delete it to measure again"
        )
    preprocessing = origin.preprocessing or memory_preprocessing(images, origin.weights)
    preprocessing = preprocessing.to(device.torch_device)
    net = own.net if own.net is not None else initial_net(recipe, seed, origin.weights, train, log)
    net = channels_last(net.to(device.torch_device))
    if own.net is not None:
        example = preprocessing(example_images(recipe, images).to(device.torch_device))
        must_give_logits(net, example, len(train.classes))
    task = ClassificationTask(
        recipe=recipe,
        device=device,
        net=net,
        optimizer=build_optimizer(recipe, net, own),
        preprocessing=preprocessing,
        loader=build_loader(recipe, seed, images, preprocessing, origin, device, log),
        count=len(train),
        classes=origin.names or train.classes,
        ids=train.ids if isinstance(train, EncodedImages) else (),
        watched=[prepare_set(images, origin, device.torch_device) for images in watched],
        final=[prepare_set(images, origin, device.torch_device) for images in final],
        class_weights=class_weights(recipe, train.labels, device.torch_device),
        origin=origin,
        log=log,
    )
    if recipe.batch_norm == "recalibrate" and not origin.begun and norms_of(net):
        task.recompute_statistics(range(CALIBRATION_BATCHES))
    task.train_mode()
    return task


def example_images(recipe: Recipe, train: ImageSet) -> Tensor:
    """Return two black images of the size that the network is trained on, uint8 [2, 3, H, W]."""
    if isinstance(train, ImagesInMemory):
        return torch.zeros_like(train.images[:1]).repeat(2, 1, 1, 1)
    assert not isinstance(recipe.augmentation, PadAndCrop)
    size = recipe.augmentation.size
    return torch.zeros(2, 3, size, size, dtype=torch.uint8)


def build_optimizer(recipe: Recipe, net: nn.Module, own: OwnParts) -> Optimizer:
    """Build the user's own optimizer, or else the authors' SGD."""
    if own.optimizer is not None:
        return build_own_optimizer(net, own.optimizer)
    return build_sgd(
        net,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        classifier_rate=recipe.classifier_rate,
    )


def open_data(recipe: Recipe, inputs: Inputs) -> MemorySplits | FolderSplits:
    """Open the image sets that a recipe names."""
    assert recipe.data != "own"
    if recipe.data != "pictures":
        return open_sets(recipe.data, inputs.data)
    assert recipe.pictures is not None
    if inputs.data is None:
        raise ValueError(f"{recipe.name} needs images: name their folder with `data`")
    return split_folder(inputs.read(read_folder, inputs.data), recipe.pictures.validation)


def opened_data(recipe: Recipe, inputs: Inputs) -> FolderSplits | None:
    """Return the image sets if they have been read to make an own-* recipe, or else None."""
    images = inputs.already_read(read_folder, inputs.data)
    if images is None or recipe.pictures is None:
        return None
    return split_folder(images, recipe.pictures.validation)


def split_sets(
    recipe: Recipe, sets: MemorySplits | FolderSplits
) -> tuple[ImageSet, Sequence[ImageSet], Sequence[ImageSet]]:
    """Return the training set, the sets monitored during training, and the final test sets."""
    if not recipe.held_out:
        return sets.train, [sets.test], [sets.test]
    train, held_out = hold_out(sets.train, recipe.held_out)
    return train, [held_out], [held_out, sets.test]


def must_match_classes(name: str, classes: int, count: int) -> None:
    """Raise ValueError unless the recipe `name` has as many `classes` as its images (`count`)."""
    if classes != count:
        raise ValueError(
            f"{name} has model.classes={classes}, the images have {count} classes: "
            f"set model.classes={count}"
        )


def side_of(recipe: Recipe, train: ImageSet) -> int:
    """Return the shorter side of the training images as the network sees them, in pixels."""
    if isinstance(train, ImagesInMemory):
        return min(train.images.shape[-2:])
    if isinstance(recipe.augmentation, PadAndCrop):
        assert recipe.pictures is not None
        return recipe.pictures.resize
    return recipe.augmentation.size


def into_memory(recipe: Recipe, train: EncodedImages, device: Device, log: Log) -> ImageSet:
    """Decode the training images if the recipe keeps them in memory; else return the set itself."""
    if not recipe.in_memory:
        return train
    assert recipe.pictures is not None
    limit = BadFileLimit(len(train), recipe.pictures.bad_limit, log, device.processes)
    return decode_all(train, recipe.pictures.resize, recipe.name, limit.report)


def with_names(train: EncodedImages, origin: InitialState) -> InitialState:
    """Add the class names known from the weights, if the folders are named by class ids only."""
    weights = origin.weights
    if weights is None or train.classes != train.ids or not set(train.ids) <= set(weights.ids):
        return origin
    known = dict(zip(weights.ids, weights.classes, strict=True))
    return replace(origin, names=tuple(known[id] for id in train.ids))


def with_statistics(
    recipe: Recipe, train: ImageSet, origin: InitialState, log: Log
) -> InitialState:
    """Add the preprocessing and the principal components of the colours.

    Weights come with the mean they were trained with. Statistics that are still missing, and were
    not measured before a resume, are measured on the training images. Those in memory have one
    size, which is the test size, and colours that stay as they are.
    """
    assert recipe.pictures is not None
    if isinstance(train, ImagesInMemory):
        known = origin.preprocessing or memory_preprocessing(train, origin.weights)
        side = recipe.pictures.resize
        return replace(origin, preprocessing=known.for_run(side, side))
    assert not isinstance(recipe.augmentation, PadAndCrop)
    size, resize = recipe.augmentation.size, recipe.pictures.resize
    preprocessing, components = origin.preprocessing, origin.components
    if preprocessing is None and origin.weights is not None:
        preprocessing = origin.weights.preprocessing
    if components is None and recipe.pictures.colour == "imagenet":
        components = ALEXNET
    if preprocessing is None or (components is None and recipe.augmentation.colour):
        log(f"measuring colours over {min(len(train), 10_000)} training images")
        mean, measured = measure_statistics(
            train, size, resize, seed=0, threads=usable_cores(),
            on_bad=lambda reason: log(f"measured without {reason}"),
        )  # fmt: skip
        components = components or measured
        if preprocessing is None:
            if recipe.pictures.mean == "channel":
                mean = mean.mean((1, 2), keepdim=True)
            preprocessing = minus_mean(mean)
    preprocessing = preprocessing.for_run(resize, size)
    return replace(origin, preprocessing=preprocessing, components=components)


def memory_preprocessing(train: ImageSet, weights: Model | None) -> Preprocessing:
    """Return the weights' preprocessing, or one that subtracts the mean image of `train`."""
    assert isinstance(train, ImagesInMemory)
    if weights is None:
        return minus_mean(pixel_mean(train.images))
    known = weights.preprocessing
    return known.for_run(known.resize, known.size)


def build_loader(
    recipe: Recipe,
    seed: int,
    train: ImageSet,
    preprocessing: Preprocessing,
    origin: InitialState,
    device: Device,
    log: Log,
) -> InMemoryLoader | EncodedLoader:
    """Build the loader for the training images."""
    augmentation = recipe.augmentation
    if isinstance(train, ImagesInMemory):
        assert isinstance(augmentation, PadAndCrop)
        return InMemoryLoader(
            train.to(device.torch_device), preprocessing, size=recipe.batch_size,
            pad=augmentation.pad,
            flip=augmentation.flip, seed=seed, balanced=recipe.balance == "sampler",
            rank_slice=device.processes.rank_slice(recipe.batch_size),
        )  # fmt: skip
    assert recipe.pictures is not None
    assert not isinstance(augmentation, PadAndCrop)
    return EncodedLoader(
        train, preprocessing.in_place, augmentation=augmentation,
        colour=origin.components if augmentation.colour else None,
        size=recipe.batch_size, seed=seed, threads=cores_for(device.processes),
        balanced=recipe.balance == "sampler",
        bad_limit=recipe.pictures.bad_limit, log=log,
        last=recipe.iterations + recipe.recompute_bn, device=device.torch_device,
        processes=device.processes,
    )  # fmt: skip


def class_weights(recipe: Recipe, labels: Tensor, device: torch.device) -> Tensor | None:
    """Return loss weights that make all classes count equally, or None if the recipe has none.

    The weights, [classes], average to 1 over the images.
    """
    if recipe.balance != "loss":
        return None
    counts = labels.bincount(minlength=recipe.model.classes)
    return (len(labels) / (len(counts) * counts.clamp_min(1))).float().to(device)


def prepare_set(images: ImageSet, origin: InitialState, device: torch.device) -> ImageSet:
    """Move a set in memory to the device, or name the classes of an encoded set, to evaluate it."""
    if isinstance(images, ImagesInMemory):
        return images.to(device)
    return replace(images, classes=origin.names or images.classes)
