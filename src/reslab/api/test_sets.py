"""Choose the set to evaluate models on: named, in a folder, or the models' own test set."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from reslab.api.models import LoadedDetector, LoadedModel
from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.build import detection_set
from reslab.data.boxes.coco import read_coco
from reslab.data.boxes.digit_scenes import digit_scenes
from reslab.data.boxes.folder import evaluation_part, read_annotations
from reslab.data.boxes.sets import DetectionSet
from reslab.data.builtin import SetName, open_sets, set_named
from reslab.data.cifar10 import ARCHIVE, BINARY_FOLDER, PYTHON_FOLDER
from reslab.data.datasets import ImageSet, ImagesInMemory, notes_of
from reslab.data.folder import open_folder, open_whole_folder
from reslab.data.location import (
    Location,
    Url,
    absolute,
    can_be_opened,
    is_image_list,
    parse_location,
    to_folder,
)
from reslab.deploy.opening import is_exported
from reslab.detection.average_precision.measure import usual_protocol
from reslab.detection.inference import AnyDetector
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import open_detection_data
from reslab.errors import unknown_name
from reslab.models.model_facts import config_in, misfit, quoted
from reslab.models.model_file import Model
from reslab.runtime.events import Callback, note
from reslab.training.folder import RunFolder
from reslab.training.recipe import PhotographSettings

SCENES = "digit-scenes"


def choose_images(
    on: str | None, data: Location | None, models: Sequence[LoadedModel], on_event: Callback
) -> ImageSet:
    """Open the set to test classifiers on: `on`, the images in `data`, or the models' own set.

    `on_event` receives the set's notes. Raise ValueError if neither is given and the models' own
    sets differ.
    """
    images = _choose_images(on, data, models, on_event)
    for line in notes_of(images):
        on_event(note(line))
    return images


def _choose_images(
    on: str | None, data: Location | None, models: Sequence[LoadedModel], on_event: Callback
) -> ImageSet:
    path, model = models[0]
    if on is not None:
        return open_test_set(on, data, path)
    if data is None:
        for other in models[1:]:
            if trained_on(*other) != trained_on(path, model):
                raise ValueError(
                    f"{path} and {other[0]} have different sets of their own: "
                    "name one with `on` or `data`"
                )
        return open_own_images(path, model)
    if isinstance(data, Url):
        return open_images_in(data, models, on_event)
    if not can_be_opened(data):
        raise ValueError(f"`data` {data}: no such folder")
    if holds_cifar10(data):
        return open_test_set("cifar10", data, path)
    return open_images_in(data, models, on_event)


def open_test_set(name: str, data: Location | None, path: Path) -> ImagesInMemory:
    """Open the test images of a named set, by default from the data folder of the run `path`."""
    if name == "own":
        raise ValueError(
            f"{path} was trained on images given in Python, which no file holds: give a set as "
            "`data` there, or name one with `on` (cifar10 or digits)"
        )
    chosen = set_named(name)
    if data is None and chosen != "digits":
        data = data_of_run(path, chosen)
    return open_sets(chosen, data).test


def open_own_images(path: Path, model: Model) -> ImageSet:
    """Open the set that a model was evaluated on during training."""
    name, folder = trained_on(path, model)
    if name is None:
        raise ValueError(
            f"{path} holds weights from elsewhere, which have no set of their own: "
            "name one with `on` (cifar10 or digits) or a folder with `data`"
        )
    if name != "pictures":
        return open_test_set(name, None, path)
    if folder is None:
        raise ValueError(
            f"the images that {path} was trained on are not found: name their folder with `data`"
        )
    fields = model.recipe.get("pictures")
    settings = config_in(PhotographSettings, fields, path, "recipe", "pictures")
    return open_folder(folder, validation=settings.validation).test


def open_images_in(data: Location, models: Sequence[LoadedModel], on_event: Callback) -> ImageSet:
    """Open a folder of images; if a model was trained on it, open only the model's test split."""
    origins = [trained_on(*model) for model in models]
    for model, (name, folder) in zip(models, origins, strict=True):
        if name == "pictures" and folder is not None and absolute(folder) == absolute(data):
            return open_own_images(*model)
    images = open_whole_folder(data)
    if images.name != "validation" and any(name == "pictures" for name, _ in origins):
        text = f"all images in {data} are tested: a model trained on them has seen most of them"
        on_event(note(text))
    return images


def trained_on(path: Path, model: Model) -> tuple[str | None, Location | None]:
    """Return the data set's name in a model's recipe and, for a folder of images, its location."""
    name = model.recipe.get("data")
    known = (*get_args(SetName), "pictures", "own")
    if name is not None and name not in known:
        raise misfit(path, f"recipe.data is {quoted(name)}, but must be {' or '.join(known)}")
    return name, data_of_run(path, name) if name == "pictures" else None


def data_of_run(path: Path, name: str) -> Location | None:
    """Return the location of the data set `name` of a run: a URL, an existing folder, or None."""
    if is_exported(path):  # by default it is written into the run folder
        path = path.parent if RunFolder(path.parent).has_run() else path
    if not path.is_dir():
        return None
    run = RunFolder.open(path)
    recorded = run.environment()["data"] if run.recipe().data == name else None
    data = parse_location(recorded) if recorded else None
    if data is None or isinstance(data, Url) or data.is_dir() or is_image_list(data):
        return data
    return None


def holds_cifar10(folder: Path) -> bool:
    """Return whether a folder is or contains the official CIFAR-10 batches."""
    folders = (PYTHON_FOLDER, BINARY_FOLDER)
    return folder.name in folders or any((folder / name).exists() for name in (*folders, ARCHIVE))


def resize_and_crop(path: Path, model: Model, images: ImageSet) -> tuple[int | None, int | None]:
    """Return the shorter side and the crop size for evaluating a model on a set of images."""
    preprocessing = model.preprocessing
    resize, size = preprocessing.resize, preprocessing.size
    mean_side = preprocessing.mean.shape[-1]  # 1: a mean colour, which fits every size
    if not isinstance(images, ImagesInMemory):
        return (mean_side, mean_side) if size is None and mean_side > 1 else (resize, size)
    if size is None and mean_side > 1 and images.images.shape[1:] != preprocessing.mean.shape:
        raise ValueError(
            f"{path} was trained on images of {list(preprocessing.mean.shape)}, "
            f"the set has {list(images.images.shape[1:])}"
        )
    return (None, None) if {resize, size} == {images.images.shape[-1]} else (resize, size)


def choose_annotated_images(
    on: str | None, data: Location | None, models: Sequence[LoadedDetector], on_event: Callback
) -> tuple[DetectionSet, str]:
    """Open the set to test detectors on; return it and its usual evaluation protocol.

    The set is `on`, the images in `data`, or the first detector's own test set. `on_event` receives
    the set's notes.
    """
    images, protocol = _choose_annotated_images(on, data, models, on_event)
    for line in images.notes:
        on_event(note(line))
    return images, protocol


def _choose_annotated_images(
    on: str | None, data: Location | None, models: Sequence[LoadedDetector], on_event: Callback
) -> tuple[DetectionSet, str]:
    path, detector = models[0]
    if on is not None:
        if on != SCENES:
            raise ValueError(unknown_name("set for a detector", on, (SCENES,)))
        return digit_scenes().test, "coco"
    if data is None:
        return open_own_annotated_images(path, detector)
    folder = to_folder(data, "a detector needs")
    own_folder = folder_of_run(path)
    if own_folder is not None and own_folder.resolve() == folder.resolve():
        return open_own_annotated_images(path, detector)
    recipe = config_in(DetectionRecipe, detector.recipe, path, "recipe") if own_folder else None
    annotations = read_annotations(folder, recipe.years if recipe else "")
    part = evaluation_part(annotations)
    images = detection_set(part)
    if part is annotations:
        on_event(note(f"all images in {folder} are tested"))
    return images, usual_protocol(part)


def open_own_annotated_images(path: Path, detector: AnyDetector) -> tuple[DetectionSet, str]:
    """Open the set that a detector was evaluated on during training, with its protocol."""
    recipe = config_in(DetectionRecipe, detector.recipe, path, "recipe")
    folder = folder_of_run(path)
    if recipe.data == "boxes" and folder is None:
        raise ValueError(
            f"the images that {path} was trained on are not found: name their folder with `data`"
        )
    sets, protocol = open_detection_data(recipe, folder)
    return sets.test, protocol


def open_annotations(data: Location) -> tuple[DetectionSet, str]:
    """Open the boxes in a folder or in one COCO file, without requiring the images."""
    data = to_folder(data, "boxes need")
    if data.suffix == ".json":
        return detection_set(_read_alone(data), alone=True), "coco"
    part = evaluation_part(read_annotations(data))
    if part.differing_ids:
        raise ValueError(
            f"{data}: {part.differing_ids}: the ids in the detections may mean either; name the "
            "annotation file whose ids they use with `data`"
        )
    return detection_set(part, alone=True), usual_protocol(part)


def _read_alone(file: Path) -> Annotations:
    return read_coco(file, file.parent, file.stem, find_images=False)


def folder_of_run(path: Path) -> Path | None:
    """Return the image folder of a detector's run, or None if it no longer exists."""
    if not path.is_dir():
        return None
    recorded = RunFolder.open(path).environment()["data"]
    return Path(recorded) if recorded and can_be_opened(Path(recorded)) else None
