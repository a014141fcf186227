"""Make a model file of published weights, with the preprocessing of their published test."""

from dataclasses import replace
from pathlib import Path

from reslab.data.cifar10 import CIFAR10_CLASSES
from reslab.data.class_list import read_class_list
from reslab.models.convert.importer import import_model
from reslab.models.model_file import Model, model_bytes
from reslab.pretrained.table import CIFAR10, MEAN, Published
from reslab.runtime.writing import atomic_write

IMAGENET_NAMES = Path(__file__).with_name("imagenet.csv")


def write_model(row: Published, file: Path, out: Path) -> None:
    """Write the model file `out` from a published file.

    Raise ValueError if the file holds another network.
    """
    atomic_write(out, model_bytes(published_model(row, file)))


def published_model(row: Published, file: Path) -> Model:
    """Import a published file, and name its outputs."""
    mean = file.with_name(MEAN) if row.source == "authors" else None
    model = import_model(file, row.network, mean if mean and mean.is_file() else None).model
    preprocessing = replace(
        model.preprocessing,
        resize=row.resize,
        size=row.size,
        interpolation=row.interpolation,
        as_stored=row.as_stored,
    )
    if row.test_set == CIFAR10:
        classes, ids = CIFAR10_CLASSES, ()
    else:
        ids, classes = zip(*read_class_list(IMAGENET_NAMES), strict=True)
    if len(classes) != len(model.classes):
        raise ValueError(
            f"{file} has {len(model.classes)} outputs, but {row.full_name} has {len(classes)}"
        )
    return replace(model, classes=classes, ids=ids, preprocessing=preprocessing)
