"""The images that a verb is asked to test models on: named, in a folder, or a model's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reslab.cli.console import warn
from reslab.errors import unknown_name

if TYPE_CHECKING:
    from reslab.data.datasets import ImageSet, ImagesInMemory
    from reslab.data.location import Location
    from reslab.models.model_file import Model

    Named = tuple[Path, Model]


PRECISIONS = ("fp32", "bf16")


def computing_in(precision: str, model: "Model") -> "Model":
    """The model as it is, in fp32, or made to compute in bf16."""
    from reslab.models.batchnorm import in_bf16

    if precision not in PRECISIONS:
        raise ValueError(unknown_name("precision", precision, PRECISIONS))
    return in_bf16(model) if precision == "bf16" else model


def test_images(on: str | None, data: "Location | None", models: "Sequence[Named]") -> "ImageSet":
    """The set to test on; without a word of it the models' own, if that is one."""
    from reslab.data.location import Url

    path, model = models[0]
    if on is not None:
        return test_set(on, data, path)
    if data is None:
        for other in models[1:]:
            if image_folder(*other) != image_folder(path, model):
                raise ValueError(
                    f"{path} and {other[0]} have different sets of their own: "
                    "name one with --on or --data"
                )
        return own_set(path, model)
    if isinstance(data, Url):
        return placed_set(data, models)
    if not data.is_dir():
        raise ValueError(f"--data {data}: no such folder")
    if holds_cifar10(data):
        return test_set("cifar10", data, path)
    return placed_set(data, models)


def test_set(name: str, data: "Location | None", path: Path) -> "ImagesInMemory":
    """The test images of a set, found where the model's run found them if not told."""
    from reslab.data.builtin import open_sets, set_named

    chosen = set_named(name)
    if data is None and chosen != "digits" and run_data(path, chosen):
        data = run_data(path, chosen)
    return open_sets(chosen, data).test


def own_set(path: Path, model: "Model") -> "ImageSet":
    """The set that a model was tested on when it was trained."""
    from reslab.data.folder import open_folder

    name, place = image_folder(path, model)
    if name is None:
        raise ValueError(
            f"{path} holds weights from elsewhere, which have no set of their own: "
            "name one with --on cifar10, --on digits or --data FOLDER"
        )
    if name != "pictures":
        return test_set(name, None, path)
    if place is None:
        raise ValueError(f"the images that {path} was trained on are not found: say --data FOLDER")
    return open_folder(place, validation=model.recipe["pictures"]["validation"]).test


def placed_set(data: "Location", models: "Sequence[Named]") -> "ImageSet":
    """The images there; never those that a model was trained on, as far as is known."""
    from reslab.data.folder import open_whole_folder
    from reslab.data.location import absolute

    for path, model in models:
        name, place = image_folder(path, model)
        if name == "pictures" and place is not None and absolute(place) == absolute(data):
            return own_set(path, model)
    images = open_whole_folder(data)
    if any(image_folder(*it)[0] == "pictures" for it in models) and images.name != "validation":
        warn(f"{data} is tested whole: a model trained on it has seen most of its images")
    return images


def image_folder(path: Path, model: "Model") -> "tuple[str | None, Location | None]":
    """A model's own set, and for images where its run found them."""
    name = model.recipe.get("data")
    return name, run_data(path, name) if name == "pictures" else None


def run_data(path: Path, name: str) -> "Location | None":
    """Where a run on the set `name` found its data: a URL, or a folder that is still there."""
    from reslab.data.location import Url, parse_location
    from reslab.training.folder import RunFolder

    if not path.is_dir():
        return None
    run = RunFolder.open(path)
    known = run.environment()["data"] if run.recipe().data == name else None
    place = parse_location(known) if known else None
    return place if isinstance(place, Url) or (place and place.is_dir()) else None


def holds_cifar10(folder: Path) -> bool:
    """Whether a folder is or holds the official batches of CIFAR-10."""
    from reslab.data.cifar10 import ARCHIVE, BINARY_FOLDER, PYTHON_FOLDER

    folders = (PYTHON_FOLDER, BINARY_FOLDER)
    return folder.name in folders or any((folder / name).exists() for name in (*folders, ARCHIVE))


def numbers_for(path: Path, model: "Model", images: "ImageSet") -> tuple[int | None, int | None]:
    """The shorter side and the crop with which a model is shown the images of a set."""
    from reslab.data.datasets import ImagesInMemory

    preprocessing = model.preprocessing
    resize, size = preprocessing.resize, preprocessing.size
    own = preprocessing.mean.shape[-1]  # 1: a colour, which goes with every size
    if not isinstance(images, ImagesInMemory):
        return (own, own) if size is None and own > 1 else (resize, size)
    if size is None and own > 1 and images.images.shape[1:] != preprocessing.mean.shape:
        raise ValueError(
            f"{path} was trained on images of {list(preprocessing.mean.shape)}, "
            f"the set has {list(images.images.shape[1:])}"
        )
    return (None, None) if {resize, size} == {images.images.shape[-1]} else (resize, size)
