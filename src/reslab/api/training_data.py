"""Open a data set as training does: what a run would train on, or why it would not start."""

from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

import torch

from reslab.data.boxes.folder import AnnotatedFolder, read_annotations
from reslab.data.boxes.foreign import foreign_annotations
from reslab.data.boxes.sets import DetectionSet, GroundTruthTable, notes_of_splits
from reslab.data.datasets import EncodedImages, FolderSplits, Splits, notes_of, replace_within_class
from reslab.data.folder import read_folder
from reslab.data.location import Location
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import open_training_data
from reslab.recipes import open_recipe
from reslab.training.recipe import Recipe
from reslab.training.setup import Inputs, open_data

IMAGES, BOXES = "own-resnet18", "own-detection-resnet18-c4"  # their networks do not matter


@dataclass(frozen=True)
class TrainingPart:
    """The training or the validation part, as a run uses it."""

    images: int
    classes: dict[str, int]  # the number of images, or of boxes, in each class, by id


@dataclass(frozen=True)
class TrainingData:
    """The parts that a run would use, or why it would not start."""

    refusal: str = ""  # the message with which training refuses the data; "" if it starts
    parts: dict[str, TrainingPart] = field(default_factory=dict)  # "train" and "validation"
    notes: tuple[str, ...] = ()  # on what a run leaves out or assumes
    divided: bool = False  # whether the data came undivided, and a run splits it


def open_images(place: Location) -> TrainingData:
    """Open images to classify as a run of an own-* recipe does."""
    inputs = Inputs(place)
    try:
        sets = _open_sets(inputs)
        divided = not isinstance(inputs.read(read_folder, place), Splits)
    except ValueError as error:
        return TrainingData(str(error))
    parts = {"train": _count_images(sets.train), "validation": _count_images(sets.test)}
    return TrainingData("", parts, notes_of(sets.train, sets.test), divided)


def _open_sets(inputs: Inputs) -> FolderSplits:
    recipe = open_recipe(IMAGES, inputs)
    assert isinstance(recipe, Recipe)
    sets = open_data(recipe, inputs)
    assert isinstance(sets.train, EncodedImages)
    assert isinstance(sets.test, EncodedImages)
    return Splits(sets.train, sets.test)


def refusal_of_bad_files(place: Location, bad: Set[str]) -> str:
    """Return training's refusal if all training images of a class are `bad` files; "" otherwise."""
    train = _open_sets(Inputs(place)).train
    good = torch.tensor([file not in bad for file in train.files])
    counts = train.labels[good].bincount(minlength=len(train.ids))
    rows = (counts[train.labels] == 0).nonzero()[:, 0].tolist()
    if not rows:
        return ""
    try:
        replace_within_class(train)(rows[0])
    except ValueError as error:
        return str(error)
    return ""  # a file was repaired in the meantime


def open_boxes(place: Location) -> tuple[TrainingData, AnnotatedFolder | None]:
    """Open images with boxes as a run of an own-detection-* recipe does.

    Also return the annotations, if they can be read.
    """
    inputs = Inputs(place)
    annotations = None
    try:
        annotations = inputs.read(read_annotations, place, "")
        recipe = open_recipe(BOXES, inputs)
        assert isinstance(recipe, DetectionRecipe)
        sets, _ = open_training_data(recipe, inputs)
    except ValueError as error:
        return TrainingData(str(error)), annotations
    parts = {"train": _count_boxes(sets.train), "validation": _count_boxes(sets.test)}
    divided = not isinstance(annotations, Splits)
    return TrainingData("", parts, notes_of_splits(sets), divided), annotations


def refusal_of_boxes(place: Location) -> list[str]:
    """Return a detector's refusal if there are boxes in a format that is not read."""
    if not (isinstance(place, Path) and place.is_dir() and foreign_annotations(place)):
        return []
    return [open_boxes(place)[0].refusal]


def _count_images(images: EncodedImages) -> TrainingPart:
    counts = images.labels.bincount(minlength=len(images.ids)).tolist()
    return TrainingPart(len(images), dict(zip(images.ids, counts, strict=True)))


def _count_boxes(images: DetectionSet) -> TrainingPart:
    truths = images.truths
    if isinstance(truths, GroundTruthTable):
        labels = truths.objects.labels
    else:
        labels = torch.cat([truth.labels for truth in truths])
    counts = labels.bincount(minlength=len(images.ids)).tolist()
    return TrainingPart(len(images), dict(zip(images.ids, counts, strict=True)))
