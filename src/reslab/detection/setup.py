"""A recipe's images with boxes, its detector and mini-batches, on their device."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reslab.data.boxes.digit_scenes import digit_scenes
from reslab.data.boxes.folder import evaluation_part, read_annotations, split_annotations
from reslab.data.boxes.sets import DetectionSet, DetectionSplits, GroundTruth
from reslab.data.decode import BadImage
from reslab.data.location import Location, to_folder
from reslab.detection.average_precision.measure import import_pycocotools, usual_protocol
from reslab.detection.initial import (
    Weights,
    detector_train_mode,
    initial_detector,
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
from reslab.training.optim import build_sgd
from reslab.training.setup import CALIBRATION_BATCHES, Inputs, inputs_at, must_match_classes

# training images whose colours give the mean, without weights that bring one
MEAN_COLOUR_IMAGES = 500


@dataclass(frozen=True)
class OpenedSets:
    """The sets of a recipe, and how results on them are measured."""

    sets: DetectionSplits
    protocol: str


def open_detection_data(
    recipe: DetectionRecipe, data: str | Location | Inputs | None
) -> OpenedSets:
    """Open the sets that a recipe names."""
    inputs = inputs_at(data)
    if recipe.data == "digit-scenes":
        return OpenedSets(inputs.read(digit_scenes), "coco")
    if inputs.data is None:
        raise ValueError(
            f"{recipe.name} needs images with boxes: name a COCO or VOC folder with --data"
        )
    folder = to_folder(inputs.data, f"{recipe.name} needs")
    annotations = inputs.read(read_annotations, folder, recipe.years)
    sets = split_annotations(annotations, recipe.validation)
    return OpenedSets(sets, usual_protocol(evaluation_part(annotations)))


def open_training_data(recipe: DetectionRecipe, data: str | Location | Inputs | None) -> OpenedSets:
    """Open the sets to train on; ValueError for what would end a run later."""
    opened = open_detection_data(recipe, data)
    train, test = opened.sets.train, opened.sets.test
    must_match_classes(recipe.name, recipe.model.classes, len(train.classes))
    must_have_objects(train.name, train.truths)
    must_have_objects(f"{test.name} that are watched", test.truths[: recipe.watched])
    if opened.protocol == "coco":
        import_pycocotools()  # better missed now than after the training
    return opened


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
    """Make the task of sets that are open. `preprocessing` was measured when the run began."""
    sets = opened.sets
    if preprocessing is None and weights is not None:
        preprocessing = weights.preprocessing
    if preprocessing is None:
        preprocessing = minus_mean(mean_colour(sets.train))
    preprocessing = preprocessing.to(device.torch_device)
    net = initial_detector(recipe, seed, weights, sets.train).to(device.torch_device)
    net = detector_channels_last(net)
    task = DetectionTask(
        recipe=recipe,
        device=device,
        net=net,
        optimizer=build_sgd(net, momentum=recipe.momentum, weight_decay=recipe.weight_decay),
        preprocessing=preprocessing,
        loader=DetectionLoader(
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
        recompute_statistics(net, calibration_losses(task), processes.all_gather, images)
    detector_train_mode(net, recipe)
    return task


def calibration_losses(task: DetectionTask) -> Iterator[object]:
    """Show training images and regions of them to the network."""
    return (
        task.image_loss(example)  # one by one, for each has statistics of its own
        for iteration in range(CALIBRATION_BATCHES)
        for share in task.prepare(task.draws(iteration))
        for example in share
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
