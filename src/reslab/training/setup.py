"""A recipe's images, preprocessing, network and mini-batches, on their device."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from reslab.data.augment import ALEXNET, PadAndCrop
from reslab.data.builtin import open_sets
from reslab.data.datasets import (
    EncodedImages,
    ImageSet,
    ImagesInMemory,
    MemorySplits,
    hold_out,
    pixel_mean,
)
from reslab.data.folder import FolderSplits, open_folder
from reslab.data.loader import EncodedLoader, InMemoryLoader
from reslab.data.location import Location
from reslab.data.sampler import Stream, make_generator
from reslab.data.statistics import measure_statistics
from reslab.models.batchnorm import recompute_statistics
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing, minus_mean
from reslab.models.resnet import ResNet, build_resnet, channels_last
from reslab.runtime.device import Device
from reslab.runtime.events import Log
from reslab.runtime.threads import cores_for, usable_cores
from reslab.training.classification import ClassificationTask
from reslab.training.origin import InitialState, must_match_weights
from reslab.training.recipe import Recipe

CALIBRATION = 50  # mini-batches whose statistics replace those that came with weights


def setup_classification(
    recipe: Recipe,
    seed: int,
    data: Location | None,
    device: Device,
    origin: InitialState = InitialState(),
    log: Log = lambda text: None,
) -> ClassificationTask:
    """All that a classification needs; `say` hears notes for the user.

    ValueError if data, weights and recipe do not fit together.
    """
    if not origin.begun:
        must_match_weights(recipe, origin.weights)
    return setup_with_sets(recipe, seed, open_data(recipe, data), device, origin, log)


def setup_with_sets(
    recipe: Recipe,
    seed: int,
    sets: MemorySplits | FolderSplits,
    device: Device,
    origin: InitialState = InitialState(),
    log: Log = lambda text: None,
) -> ClassificationTask:
    """The same for sets that are open."""
    train, watched, final = split_sets(recipe, sets)
    must_know_classes(recipe, train)
    if isinstance(train, EncodedImages):
        origin = device.processes.run_on_first(
            partial(with_statistics, recipe, train, with_names(train, origin), log)
        )
    preprocessing = origin.preprocessing or own_preprocessing(train, origin.weights)
    preprocessing = preprocessing.to(device.torch_device)
    net = initial_net(recipe, seed, origin.weights, train)
    it = ClassificationTask(
        recipe=recipe,
        device=device,
        net=channels_last(net.to(device.torch_device)),
        preprocessing=preprocessing,
        batches=build_loader(recipe, seed, train, preprocessing, origin, device, log),
        count=len(train),
        classes=origin.names or train.classes,
        ids=train.ids if isinstance(train, EncodedImages) else (),
        watched=[prepare_set(images, origin, device.torch_device) for images in watched],
        final=[prepare_set(part, origin, device.torch_device) for part in final],
        class_weights=class_weights(recipe, train.labels, device.torch_device),
        origin=origin,
    )
    if recipe.batch_norm == "recalibrate" and not origin.begun:
        with device.autocast():
            recompute_statistics(
                it.net,
                calibration(it),
                device.processes.all_gather,
                recipe.virtual_gpus // device.processes.count,
            )
    it.train_mode()
    return it


def open_data(recipe: Recipe, data: Location | None) -> MemorySplits | FolderSplits:
    """The sets that a recipe names."""
    if recipe.data != "pictures":
        return open_sets(recipe.data, data)
    assert recipe.pictures is not None
    if data is None:
        raise ValueError(f"{recipe.name} needs images: name their folder with --data")
    return open_folder(data, validation=recipe.pictures.validation)


def split_sets(
    recipe: Recipe, sets: MemorySplits | FolderSplits
) -> tuple[ImageSet, Sequence[ImageSet], Sequence[ImageSet]]:
    """The training images, those evaluated on the way, those evaluated at the end."""
    if not recipe.held_out:
        return sets.train, [sets.test], [sets.test]
    train, held = hold_out(sets.train, recipe.held_out)
    return train, [held], [held, sets.test]


def must_know_classes(recipe: Recipe, train: ImageSet) -> None:
    if recipe.model.classes != len(train.classes):
        raise ValueError(
            f"{recipe.name} has model.classes={recipe.model.classes}, the images have "
            f"{len(train.classes)} classes: --set model.classes={len(train.classes)}"
        )


def with_names(train: EncodedImages, origin: InitialState) -> InitialState:
    """`origin` with names for the classes, if folders have ids alone and the weights know them."""
    weights = origin.weights
    if weights is None or train.classes != train.ids or not set(train.ids) <= set(weights.ids):
        return origin
    known = dict(zip(weights.ids, weights.classes, strict=True))
    return replace(origin, names=tuple(known[id] for id in train.ids))


def with_statistics(
    recipe: Recipe, train: EncodedImages, origin: InitialState, log: Log
) -> InitialState:
    """`origin` with the preprocessing and the colours' components of photographs.

    Weights bring the mean that they were trained with; of the rest, what the recipe asks for and
    nobody has found before is measured on the training images.
    """
    assert recipe.pictures is not None
    assert not isinstance(recipe.augmentation, PadAndCrop)
    size, resize = recipe.augmentation.size, recipe.pictures.resize
    found, components = origin.preprocessing, origin.components
    if found is None and origin.weights is not None:
        found = origin.weights.preprocessing
    if components is None and recipe.pictures.colour == "imagenet":
        components = ALEXNET
    if found is None or (components is None and recipe.augmentation.colour):
        log(f"measuring colours over {min(len(train), 10_000)} training images")
        measured = measure_statistics(train, size, resize, seed=0, threads=usable_cores())
        components = components or measured.components
        if found is None:
            by_channel = recipe.pictures.mean == "channel"
            mean = measured.pixel_mean
            found = minus_mean(mean.mean((1, 2), keepdim=True) if by_channel else mean)
    return replace(
        origin, preprocessing=replace(found, resize=resize, size=size), components=components
    )


def own_preprocessing(train: ImageSet, weights: Model | None) -> Preprocessing:
    """That of a set in memory: what the weights were trained with, or minus the mean image."""
    assert isinstance(train, ImagesInMemory)
    return weights.preprocessing if weights else minus_mean(pixel_mean(train.images))


def initial_net(recipe: Recipe, seed: int, weights: Model | None, train: ImageSet) -> ResNet:
    """Drawn from the seed, or the given weights; a classifier of other classes starts at zero,
    so that it disturbs them as little as it can."""
    net = build_resnet(recipe.model, make_generator(seed, Stream.INITIALISATION))
    if weights is None:
        return net
    state = weights.net.state_dict()
    theirs = (weights.classes, weights.ids)
    if theirs != (train.classes, train.ids if isinstance(train, EncodedImages) else ()):
        own = net.fc.state_dict()
        state |= {f"fc.{name}": torch.zeros_like(tensor) for name, tensor in own.items()}
    net.load_state_dict(state)
    return net


def build_loader(
    recipe: Recipe,
    seed: int,
    train: ImageSet,
    preprocessing: Preprocessing,
    origin: InitialState,
    device: Device,
    log: Log,
) -> InMemoryLoader | EncodedLoader:
    """The mini-batches of training."""
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
        train, preprocessing, augmentation=augmentation,
        colour=origin.components if augmentation.colour else None,
        size=recipe.batch_size, seed=seed, threads=cores_for(device.processes),
        balanced=recipe.balance == "sampler",
        bad_limit=recipe.pictures.bad_limit, log=log,
        last=recipe.iterations + recipe.recompute_bn, device=device.torch_device,
        processes=device.processes,
    )  # fmt: skip


def class_weights(recipe: Recipe, labels: Tensor, device: torch.device) -> Tensor | None:
    """Weights of the loss under which every class counts alike; their mean over images is 1."""
    if recipe.balance != "loss":
        return None
    counts = labels.bincount(minlength=recipe.model.classes)
    return (len(labels) / (len(counts) * counts.clamp_min(1))).float().to(device)


def calibration(it: ClassificationTask):
    """Augmented training images, whose statistics the given weights then keep."""
    return (it.net(share.images) for k in range(CALIBRATION) for share in it.shares(k))


def prepare_set(images: ImageSet, origin: InitialState, device: torch.device) -> ImageSet:
    """A set as it is evaluated: on the device if it is in memory, its classes called by names."""
    if isinstance(images, ImagesInMemory):
        return images.to(device)
    return replace(images, classes=origin.names or images.classes)
