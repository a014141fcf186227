"""Open a detector's data and weights, and build the detection task."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reslab.data.boxes.digit_scenes import digit_scenes
from reslab.data.boxes.folder import evaluation_part, read_annotations, split_annotations
from reslab.data.boxes.sets import DetectionSet, DetectionSplits, notes_of_splits
from reslab.data.class_names import ClassIndex
from reslab.data.decode import BadImage
from reslab.data.location import Location, to_folder
from reslab.data.sampler import Stream, make_generator
from reslab.detection.average_precision.measure import import_pycocotools, usual_protocol
from reslab.detection.inference import Detector
from reslab.detection.loader import DetectionLoader, must_have_objects
from reslab.detection.network import FasterRCNN, build_detector
from reslab.detection.predict import load_detector
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.task import DetectionTask, detector_train_mode
from reslab.models.batchnorm import recompute_statistics, restore_initial_scale
from reslab.models.config import ResNetConfig
from reslab.models.layers import channels_last
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing, minus_mean
from reslab.runtime.device import Device
from reslab.runtime.events import Log
from reslab.runtime.threads import cores_for, map_in_order, usable_cores
from reslab.training.initial_net import match_in_words, matching_rows
from reslab.training.optimizer import build_sgd
from reslab.training.origin import fit_config, fit_recipe, folded_error, must_have_digest
from reslab.training.setup import CALIBRATION_BATCHES, Inputs, inputs_at, must_match_classes
from reslab.training.task import task_of
from reslab.training.weights import is_foreign, load_classifier

# number of training images that the mean colour is computed from, unless weights supply a mean
MEAN_COLOUR_IMAGES = 500
CLASS_LAYERS = ("classifier.", "regressor.")  # prefixes of the class-specific layers' parameters

Weights = Model | Detector
OpenedSets = tuple[DetectionSplits, str]  # with the evaluation protocol for the test set


def open_detection_data(
    recipe: DetectionRecipe, data: str | Location | Inputs | None
) -> OpenedSets:
    """Open the training and test sets that a recipe names; return them with their protocol."""
    inputs = inputs_at(data)
    if recipe.data == "digit-scenes":
        return inputs.read(digit_scenes), "coco"
    if inputs.data is None:
        raise ValueError(f"{recipe.name} needs images with boxes: name their folder with `data`")
    folder = to_folder(inputs.data, f"{recipe.name} needs")
    sets = read_splits(inputs, folder, recipe.years, recipe.validation)
    annotations = inputs.read(read_annotations, folder, recipe.years)
    return sets, usual_protocol(evaluation_part(annotations))


def read_splits(inputs: Inputs, folder: Path, years: str, validation: float) -> DetectionSplits:
    """Open the training and test sets of a folder, only once per `inputs`."""
    key = (read_splits, folder, years, validation)
    if key not in inputs.known:
        annotations = inputs.read(read_annotations, folder, years)
        inputs.known[key] = split_annotations(annotations, validation)
    return inputs.known[key]


def open_training_data(recipe: DetectionRecipe, data: str | Location | Inputs | None) -> OpenedSets:
    """Open a run's sets; raise ValueError for faults that would otherwise stop the run later."""
    sets, protocol = open_detection_data(recipe, data)
    must_be_trainable(recipe, sets, protocol)
    return sets, protocol


def must_be_trainable(recipe: DetectionRecipe, sets: DetectionSplits, protocol: str) -> None:
    """Raise ValueError for faults in a run's sets that would otherwise stop the run later."""
    train, test = sets.train, sets.test
    must_match_classes(recipe.name, recipe.model.classes, len(train.classes))
    must_have_objects(train.name, train.truths)
    must_have_objects(f"{test.name} evaluated during training", test.truths[: recipe.watched])
    if protocol == "coco":
        import_pycocotools()  # better to fail now than after training


def setup_detection(
    recipe: DetectionRecipe,
    seed: int,
    sets: DetectionSplits,
    protocol: str,
    device: Device,
    *,
    weights: Weights | None,
    preprocessing: Preprocessing | None,
    proposer: FasterRCNN | None,
    begun: bool,
    log: Log,
) -> DetectionTask:
    """Build the task from opened sets.

    `preprocessing` is the one stored when the run began, or None for a new run. `begun` is True if
    a checkpoint holds the network's state.
    """
    if recipe.stage not in (2, 3, 4):  # steps that follow one on the same sets
        for line in notes_of_splits(sets):
            log(line)
    if preprocessing is None and weights is not None:
        known = weights.preprocessing
        preprocessing = known.for_run(known.resize, known.size)
    if preprocessing is None:
        preprocessing = minus_mean(mean_colour(sets.train))
    preprocessing = preprocessing.to(device.torch_device)
    net = initial_detector(recipe, seed, weights, sets.train, log).to(device.torch_device)
    net = channels_last(net)
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
        protocol=protocol,
        proposer=proposer.to(device.torch_device) if proposer else None,
        log=log,
    )  # fmt: skip
    # steps 3 and 4 keep the trunk of an earlier step, including its statistics
    if recipe.model.norm == "recompute" and not begun and recipe.stage not in (3, 4):
        processes = device.processes
        images = recipe.batch_size // processes.count
        recompute_statistics(net, calibration_losses(task), processes.all_gather, images)
    detector_train_mode(net, recipe)
    return task


def calibration_losses(task: DetectionTask) -> Iterator[object]:
    """Return an iterator that passes training images and their regions through the network."""
    return (
        task.image_loss(example)  # each image has its own statistics
        for iteration in range(CALIBRATION_BATCHES)
        for share in task.prepare(task.draws(iteration))
        for example in share
    )


def mean_colour(train: DetectionSet) -> Tensor:
    """Compute the mean colour of the first training images, [3, 1, 1].

    Sums of integers in float64 are exact, so they do not depend on the order of summation. Raise
    ValueError if no image can be decoded.
    """

    def colour(index: int) -> np.ndarray | BadImage:
        try:
            return train.image(index).mean((0, 1), dtype=np.float64)
        except BadImage as bad:
            return bad

    count = min(len(train), MEAN_COLOUR_IMAGES)
    with closing(map_in_order(colour, range(count), usable_cores(), 8)) as results:
        found = list(results)
    colours = [result for result in found if not isinstance(result, BadImage)]
    if not colours:
        raise ValueError(f"no image of {train.name} can be used: {found[0]}")
    return torch.from_numpy(np.mean(colours, axis=0)).float()[:, None, None]


def load_weights(path: str | Path) -> Weights:
    """Load a classifier or a detector from a model file, or from the one in a run folder."""
    return read_weights(Inputs(), Path(path))


def read_weights(inputs: Inputs, path: Path) -> Weights:
    """Load a classifier or a detector, only once per `inputs`."""
    detector = not is_foreign(path) and task_of(path) == "detection"
    return inputs.read(load_detector if detector else load_classifier, path)


def trunk_of(weights: Weights) -> ResNetConfig:
    """Return the configuration of the residual network that the weights belong to."""
    return weights.net.config.trunk if isinstance(weights, Detector) else weights.config


def fit_detector_to_weights(recipe: DetectionRecipe, weights: Weights) -> DetectionRecipe:
    """Return `recipe` with the layout and the digest of the weights to start from.

    Raise ValueError if the weights belong to another network.
    """
    trunk = fit_config(recipe.model.trunk, trunk_of(weights), recipe.name)
    model = recipe.model.model_copy(update={"trunk": trunk})
    return fit_recipe(recipe, weights.net, model=model)


def must_match_trunk(recipe: DetectionRecipe, weights: Weights | None) -> None:
    """Raise ValueError if `recipe` cannot start from `weights`, or needs weights but has none."""
    if weights is None:
        if recipe.model.norm == "group" and not recipe.fixed_stages and recipe.weights is None:
            return
        raise ValueError(
            f"{recipe.name} starts from trained weights, whose batch norm it keeps: give them with "
            "`weights`, or set model.norm=group and fixed_stages=0 to train from scratch"
        )
    must_have_digest(recipe, weights.net)
    if recipe.model.norm == "frozen":
        if never_trained(weights.net) and isinstance(weights, Model) and not weights.folded:
            raise ValueError(
                "the weights were never trained, so their batch norm has no statistics to keep; "
                "set model.norm=group and fixed_stages=0 to train from scratch"
            )
    elif norm_is_folded(weights):
        raise folded_error("model.norm", recipe.model.norm)


def norm_is_folded(weights: Weights) -> bool:
    """Return whether batch norm is folded into the convolutions of `weights`.

    A detector does not record this, but one trained from folded weights has running means of 0.
    """
    return weights.folded if isinstance(weights, Model) else never_trained(weights.net)


def never_trained(net: nn.Module) -> bool:
    """Return whether a network has batch norm and all its running means are still 0."""
    means = [mean for name, mean in net.state_dict().items() if name.endswith("running_mean")]
    return bool(means) and not any(bool(mean.any()) for mean in means)


def initial_detector(
    recipe: DetectionRecipe,
    seed: int,
    weights: Weights | None,
    train: DetectionSet,
    log: Log = lambda text: None,
) -> FasterRCNN:
    """Build the network with all the weights that fit; initialise the rest from `seed`.

    A classifier supplies the residual part. A detector also supplies all other layers that fit, but
    the class-specific layers only if it has the classes of the set, in any order. `log` receives a
    line about them, unless the classes are equal.
    """
    net = build_detector(recipe.model, make_generator(seed, Stream.INITIALISATION))
    if weights is not None:
        state = weights.net.state_dict()
        equal = (weights.ids, weights.classes) == (train.ids, train.classes)
        if isinstance(weights, Detector) and not equal:
            state = with_class_layers(state, weights, train, log)
        net.load_state_dict(net.state_dict() | matching(net, state))
    if isinstance(weights, Model):
        restore_initial_scale(net)
    return net


def with_class_layers(
    state: dict[str, Tensor], weights: Detector, train: DetectionSet, log: Log
) -> dict[str, Tensor]:
    """Return a detector's weights with its class layers in the order of the set's classes.

    Leave them out unless the classes match one to one. Only names are matched, because ids are
    numbers that each annotation file chooses.
    """
    rows = matching_rows(ClassIndex(weights.classes), [(name,) for name in train.classes])
    if rows is None:
        log("new class layers are initialised: the weights have other classes than the images")
        return {name: state[name] for name in state if not name.startswith(CLASS_LAYERS)}
    log(f"the detector's class layers are kept: {match_in_words(rows)}")
    scores = torch.tensor([0, *(row + 1 for row in rows)])  # the first is the background
    deltas = (4 * torch.tensor(rows)[:, None] + torch.arange(4)).flatten()
    order = {"classifier": scores, "regressor": deltas}
    return {
        name: tensor[order[name.partition(".")[0]]] if name.startswith(CLASS_LAYERS) else tensor
        for name, tensor in state.items()
    }


def matching(net: FasterRCNN, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that fit `net`; raise ValueError unless they cover its residual part."""
    state = net.state_dict()
    fitting = {
        name: tensor
        for name, tensor in weights.items()
        if name in state and tensor.shape == state[name].shape
    }
    for name in state:
        if name.startswith(("stem.", "stages.")) and name not in fitting:
            raise ValueError(f"the weights belong to another network: {name} does not fit")
    return fitting
