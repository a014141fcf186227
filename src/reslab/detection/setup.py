"""A recipe's images with boxes, its detector and mini-batches, on their device."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reslab.data.boxes.digit_scenes import digit_scenes
from reslab.data.boxes.folder import read_parts, split_parts
from reslab.data.boxes.sets import DetectionSet, DetectionSplits, GroundTruth
from reslab.data.decode import BadImage
from reslab.data.location import Location, to_folder
from reslab.detection.average_precision.measure import import_pycocotools, usual_protocol
from reslab.detection.initial import (
    Weights,
    detector_train_mode,
    initial_detector,
    must_match_trunk,
)
from reslab.detection.loader import DetectionLoader, is_trainable
from reslab.detection.network import FasterRCNN, detector_channels_last
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.task import DetectionTask
from reslab.models.batchnorm import recompute_statistics
from reslab.models.preprocessing import Preprocessing, minus_mean
from reslab.runtime.device import Device
from reslab.runtime.events import Log
from reslab.runtime.threads import cores_for, map_in_order, usable_cores

CALIBRATION_BATCHES = 50  # mini-batches whose statistics replace those that came with the weights
MEAN_COLOUR_IMAGES = (
    500  # training images whose colours give the mean, without weights that bring one
)


@dataclass(frozen=True)
class OpenedSets:
    """The sets of a recipe, and how results on them are measured."""

    sets: DetectionSplits
    protocol: str


def open_detection_data(recipe: DetectionRecipe, data: Location | None) -> OpenedSets:
    """The sets that a recipe names."""
    if recipe.data == "digit-scenes":
        return OpenedSets(digit_scenes(), "coco")
    if data is None:
        raise ValueError(
            f"{recipe.name} needs images with boxes: name a COCO or VOC folder with --data"
        )
    parts = read_parts(to_folder(data, f"{recipe.name} needs"), recipe.years)
    test = parts.whole if parts.test is None else parts.test
    assert test is not None
    protocol = usual_protocol(parts.layout, test.root.resolve(), test.files)
    return OpenedSets(split_parts(parts, recipe.validation), protocol)


def open_training_data(recipe: DetectionRecipe, data: Location | None) -> OpenedSets:
    """The same, for training; ValueError for what would end a run later."""
    opened = open_detection_data(recipe, data)
    train, test = opened.sets.train, opened.sets.test
    must_match_classes(recipe, train)
    must_have_objects(train.name, train.truths)
    must_have_objects(f"{test.name} that are watched", test.truths[: recipe.watched])
    if opened.protocol == "coco":
        import_pycocotools()  # better missed now than after the training
    return opened


def setup_detector(
    recipe: DetectionRecipe,
    seed: int,
    data: Location | None,
    device: Device,
    weights: Weights | None,
    log: Log,
) -> DetectionTask:
    """The training of a new run; ValueError if data, weights and recipe do not fit together."""
    must_match_trunk(recipe, weights)
    return setup_with_data(
        recipe, seed, open_training_data(recipe, data), device, weights=weights, preprocessing=None,
        proposer=None, begun=False, log=log,
    )  # fmt: skip


def setup_with_data(
    recipe: DetectionRecipe,
    seed: int,
    opened: OpenedSets,
    device: Device,
    *,
    weights: Weights | None,
    preprocessing: Preprocessing | None,
    proposer: FasterRCNN | None,
    begun: bool,
    log: Log,
) -> DetectionTask:
    """All that a detector's training needs. `preprocessing` was found when the run began."""
    sets = opened.sets
    if preprocessing is None and weights is not None:
        preprocessing = weights.preprocessing
    if preprocessing is None:
        preprocessing = minus_mean(mean_colour(sets.train))
    preprocessing = preprocessing.to(device.torch_device)
    net = initial_detector(recipe, seed, weights, sets.train)
    it = DetectionTask(
        recipe=recipe,
        device=device,
        net=detector_channels_last(net.to(device.torch_device)),
        preprocessing=preprocessing,
        batches=DetectionLoader(
            sets.train, preprocessing, shorter=recipe.shorter, longest=recipe.longest,
            flip=recipe.flip, size=recipe.batch_size, seed=seed,
            threads=cores_for(device.processes),
            bad_limit=recipe.bad_limit, log=log, last=recipe.iterations,
            device=device.torch_device,
            processes=device.processes,
        ),
        test=sets.test,
        protocol=opened.protocol,
        proposer=proposer.to(device.torch_device) if proposer else None,
        log=log,
    )  # fmt: skip
    # a trunk that an earlier step left is kept, statistics and all
    if recipe.model.norm == "recompute" and not begun and recipe.stage not in (3, 4):
        processes = device.processes
        images = recipe.batch_size // processes.count
        recompute_statistics(it.net, calibration_losses(it), processes.all_gather, images)
    detector_train_mode(it.net, recipe)
    return it


def calibration_losses(it: DetectionTask) -> Iterator[object]:
    """Training images and regions of them, shown to the network."""
    return (
        it.image_loss(example)  # one by one, for each has statistics of its own
        for k in range(CALIBRATION_BATCHES)
        for share in it.shares(k)
        for example in share
    )


def must_match_classes(recipe: DetectionRecipe, train: DetectionSet) -> None:
    if recipe.model.classes != len(train.classes):
        raise ValueError(
            f"{recipe.name} has model.classes={recipe.model.classes}, the images have "
            f"{len(train.classes)} classes: --set model.classes={len(train.classes)}"
        )


def must_have_objects(name: str, truths: Sequence[GroundTruth]) -> None:
    if not any(is_trainable(truth).any() for truth in truths):
        raise ValueError(
            f"none of the {len(truths):,} images of {name} has an object to find: "
            "difficult objects and crowds do not count"
        )


def mean_colour(train: DetectionSet) -> Tensor:
    """Of the first training images, [3, 1, 1], exact: summed as whole numbers by image."""

    def colour(index: int) -> np.ndarray | None:
        try:
            return train.image(index).mean((0, 1), dtype=np.float64)
        except BadImage:
            return None

    count = min(len(train), MEAN_COLOUR_IMAGES)
    with closing(map_in_order(colour, range(count), usable_cores(), 8)) as coming:
        colours = [it for it in coming if it is not None]
    if not colours:
        raise ValueError(f"no image of {train.name} can be decoded")
    return torch.from_numpy(np.mean(colours, axis=0)).float()[:, None, None]
