"""A recipe's pictures with boxes, its detector and mini-batches, on their device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reslab.data.boxes.digit_scenes import digit_scenes
from reslab.data.boxes.folder import read_parts, sets_of
from reslab.data.boxes.sets import DetectionSet, DetectionSets, GroundTruth
from reslab.data.decode import BadPicture
from reslab.data.location import Place, folder_of
from reslab.detection.average_precision.measure import authors_code, usual_protocol
from reslab.detection.initial import Weights, initial_net, must_fit, train_mode
from reslab.detection.loader import DetectionBatches, to_find
from reslab.detection.network import FasterRCNN, channels_last
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.task import DetectorTraining
from reslab.models.batchnorm import recompute_statistics
from reslab.models.preprocessing import Preprocessing, minus_mean
from reslab.runtime.device import World
from reslab.runtime.threads import cores_for, in_order, usable_cores

CALIBRATION = 50  # mini-batches whose statistics replace those that came with the weights
MEASURED = 500  # training pictures whose colours give the mean, without weights that bring one
Say = Callable[[str], None]


@dataclass(frozen=True)
class Opened:
    """The sets of a recipe, and how results on them are measured."""

    sets: DetectionSets
    protocol: str


def open_data(recipe: DetectionRecipe, data: Place | None) -> Opened:
    """The sets that a recipe names."""
    if recipe.data == "digit-scenes":
        return Opened(digit_scenes(), "coco")
    if data is None:
        raise ValueError(
            f"{recipe.name} needs pictures with boxes: name a COCO or VOC folder with --data"
        )
    parts = read_parts(folder_of(data, f"{recipe.name} needs"), recipe.years)
    test = parts.whole if parts.test is None else parts.test
    assert test is not None
    protocol = usual_protocol(parts.layout, test.root.resolve(), test.files)
    return Opened(sets_of(parts, recipe.validation), protocol)


def open_fitting(recipe: DetectionRecipe, data: Place | None) -> Opened:
    """The same, for training; ValueError for what would end a run later."""
    opened = open_data(recipe, data)
    train, test = opened.sets.train, opened.sets.test
    must_know_classes(recipe, train)
    must_have_objects(train.name, train.truths)
    must_have_objects(f"{test.name} that are watched", test.truths[: recipe.watched])
    if opened.protocol == "coco":
        authors_code()  # better missed now than after the training
    return opened


def prepare_detector(
    recipe: DetectionRecipe,
    seed: int,
    data: Place | None,
    world: World,
    weights: Weights | None,
    say: Say,
) -> DetectorTraining:
    """The training of a new run; ValueError if data, weights and recipe do not fit together."""
    must_fit(recipe, weights)
    return prepared(
        recipe, seed, open_fitting(recipe, data), world, weights=weights, preprocessing=None,
        proposer=None, begun=False, say=say,
    )  # fmt: skip


def prepared(
    recipe: DetectionRecipe,
    seed: int,
    opened: Opened,
    world: World,
    *,
    weights: Weights | None,
    preprocessing: Preprocessing | None,
    proposer: FasterRCNN | None,
    begun: bool,
    say: Say,
) -> DetectorTraining:
    """All that a detector's training needs. `preprocessing` was found when the run began."""
    sets = opened.sets
    if preprocessing is None and weights is not None:
        preprocessing = weights.preprocessing
    if preprocessing is None:
        preprocessing = minus_mean(mean_colour(sets.train))
    preprocessing = preprocessing.to(world.device)
    net = initial_net(recipe, seed, weights, sets.train)
    it = DetectorTraining(
        recipe=recipe,
        world=world,
        net=channels_last(net.to(world.device)),
        preprocessing=preprocessing,
        batches=DetectionBatches(
            sets.train, preprocessing, shorter=recipe.shorter, longest=recipe.longest,
            flip=recipe.flip, size=recipe.batch_size, seed=seed,
            threads=cores_for(world.processes),
            bad_limit=recipe.bad_limit, tell=say, last=recipe.iterations, device=world.device,
            processes=world.processes,
        ),
        test=sets.test,
        protocol=opened.protocol,
        proposer=proposer.to(world.device) if proposer else None,
        say=say,
    )  # fmt: skip
    # a trunk that an earlier step left is kept, statistics and all
    if recipe.model.norm == "recompute" and not begun and recipe.stage not in (3, 4):
        processes = world.processes
        pictures = recipe.batch_size // processes.count
        recompute_statistics(it.net, calibration(it), processes.gather, pictures)
    train_mode(it.net, recipe)
    return it


def calibration(it: DetectorTraining) -> Iterator[object]:
    """Training pictures and regions of them, shown to the network."""
    return (
        it.losses_of(example)  # one by one, for each has statistics of its own
        for k in range(CALIBRATION)
        for share in it.shares_of(k)
        for example in share
    )


def must_know_classes(recipe: DetectionRecipe, train: DetectionSet) -> None:
    if recipe.model.classes != len(train.classes):
        raise ValueError(
            f"{recipe.name} has model.classes={recipe.model.classes}, the pictures have "
            f"{len(train.classes)} classes: --set model.classes={len(train.classes)}"
        )


def must_have_objects(name: str, truths: Sequence[GroundTruth]) -> None:
    if not any(to_find(truth).any() for truth in truths):
        raise ValueError(
            f"none of the {len(truths):,} pictures of {name} has an object to find: "
            "difficult objects and crowds do not count"
        )


def mean_colour(train: DetectionSet) -> Tensor:
    """Of the first training pictures, [3, 1, 1], exact: summed as whole numbers by picture."""

    def colour(index: int) -> np.ndarray | None:
        try:
            return train.picture(index).mean((0, 1), dtype=np.float64)
        except BadPicture:
            return None

    count = min(len(train), MEASURED)
    with closing(in_order(colour, range(count), usable_cores(), 8)) as coming:
        colours = [it for it in coming if it is not None]
    if not colours:
        raise ValueError(f"no picture of {train.name} can be decoded")
    return torch.from_numpy(np.mean(colours, axis=0)).float()[:, None, None]
