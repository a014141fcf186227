"""Open the trained weights of a classifier for a run: a model file, a run folder, or a file of
another program."""

from dataclasses import replace
from pathlib import Path

from reslab.data.cifar10 import CIFAR10_CLASSES
from reslab.models.convert.importer import Imported, import_to_start
from reslab.models.convert.layouts import AKAMASTER
from reslab.models.model_file import Model, load_model, read_facts

SHOWN = 3  # names of tensors in a note
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # in a folder of Hugging Face's


def load_classifier(path: Path) -> Model:
    """Load a classifier from a model file or run folder, or import another program's weights.

    Raise ValueError if a file of another program does not determine its network.
    """
    if not is_foreign(path):
        return load_model(path)
    file = weights_file(path)
    imported = import_to_start(file)
    return replace(name_cifar10_outputs(imported).model, notes=import_notes(file, imported))


def weights_file(path: Path) -> Path:
    """Return the file of weights in a folder, or `path` itself if there is none."""
    return next((path / name for name in WEIGHT_FILES if (path / name).is_file()), path)


def is_foreign(path: Path) -> bool:
    """Return whether there is a file of weights that was not written by reslab."""
    file = weights_file(path)
    if not file.is_file():
        return False
    try:
        facts = read_facts(file)
    except ValueError:
        return True
    return not facts.keys() & {"reslab", "config", "detector"}


def name_cifar10_outputs(imported: Imported) -> Imported:
    """Name the outputs of a CIFAR-10 net in a layout that only CIFAR-10 nets have."""
    model = imported.model
    if model.has_names or imported.layout is not AKAMASTER:
        return imported
    if len(model.classes) != len(CIFAR10_CLASSES):
        return imported
    return replace(imported, model=replace(model, classes=CIFAR10_CLASSES))


def import_notes(file: Path, imported: Imported) -> tuple[str, ...]:
    """Return lines for the user on what was recognised, assumed and left out."""
    first = f"{file}: {imported.network}, from {imported.layout.title}"
    return (first, *notes_of(file, imported))


def notes_of(file: Path, imported: Imported) -> tuple[str, ...]:
    """Return lines for the user on what was assumed and left out."""
    lines = [f"{file}: {line}" for line in imported.notes]
    if names := imported.left_out:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"{file}: left out: {', '.join(names[:SHOWN])}{more}")
    return tuple(lines)
