"""Import weights from other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from reslab.api.display import OnEvent, showing
from reslab.data.class_list import read_class_list
from reslab.models.convert.importer import Imported, import_model
from reslab.models.model_file import Model, model_bytes
from reslab.runtime.events import note
from reslab.runtime.files import read_text
from reslab.runtime.writing import atomic_write
from reslab.training.weights import name_cifar10_outputs, notes_of, weights_file


@dataclass(frozen=True)
class ImportedModel:
    """A model file made from another program's weights."""

    path: Path
    imported: Imported

    @property
    def network(self) -> str:
        """The name of the network."""
        return self.imported.network

    @property
    def model(self) -> Model:
        return self.imported.model

    def __repr__(self) -> str:
        layout, classes = self.imported.layout.title, len(self.model.classes)
        return f"ImportedModel({str(self.path)!r}: {self.network}, {classes} classes, {layout})"

    def as_dict(self) -> dict[str, JsonValue]:
        """Return a description of the model for JSON."""
        model, prepared = self.model, self.model.preprocessing
        decided: dict[str, JsonValue] = {**self.imported.decided}
        return {
            "model": str(self.path),
            "network": self.network,
            "layout": self.imported.layout.title,
            "decided": decided,
            "config": model.config.model_dump(),
            "preprocessing": {
                "channels": prepared.channels,
                "mean": prepared.mean.mean((1, 2)).tolist(),
                "std": prepared.std.flatten().tolist(),
                "resize": prepared.resize,
                "size": prepared.size,
            },
            "classes": [*model.classes],
            "ids": [*model.ids],
            "batch_norm_folded": model.folded,
            "left_out": [*self.imported.left_out],
        }


def import_weights(
    file: str | Path,
    network: str | None,
    out: str | Path,
    *,
    classes: str | Path | None = None,
    mean: str | Path | None = None,
    on_event: OnEvent = "print",
) -> ImportedModel:
    """Write the model file `out` from another program's weights, recognised by their names.

    `file` holds weights of torchvision, timm, MMPretrain, Lightning or Hugging Face, of akamaster's
    CIFAR nets, of the authors' Caffe models, or of reslab; it may be a folder of Hugging Face's.
    `network` is a name such as "resnet50"; None stands for the only one that fits. The file
    `classes` names the outputs instead of the names found with the weights: .csv with index,id,name
    or .txt with one per line. The file `mean`, .npy, .npz or .binaryproto, [3] or [3, H, W] from 0
    to 255, is the mean to subtract from images, if the layout does not determine it.

    Raise ValueError if `out` exists, if the weights are not those of the network, or if they have
    no classifier.
    """
    check_new_file(Path(out), (".safetensors",))
    file = weights_file(Path(file))
    imported = import_model(file, network, Path(mean) if mean else None)
    lines = notes_of(file, imported)
    if classes:
        imported = replace(imported, model=name_outputs(imported.model, Path(classes)))
    else:
        imported = name_cifar10_outputs(imported)
        if not imported.model.has_names:
            outputs = len(imported.model.classes)
            text = f"the {outputs} outputs are called 0 to {outputs - 1}; name them with a file of "
            lines = (*lines, f"{text}classes")
    with showing(on_event) as callback:
        for line in lines:
            callback(note(line))
    atomic_write(Path(out), model_bytes(imported.model))
    return ImportedModel(Path(out), imported)


def check_new_file(out: Path, suffixes: Sequence[str]) -> None:
    """Raise ValueError, before any work, if `out` exists or has the wrong suffix."""
    if out.suffix not in suffixes:
        raise ValueError(f"`out` {out}: the file must end in {' or '.join(suffixes)}")
    if out.exists():
        raise ValueError(f"`out` {out} exists already: name another file, or remove it first")
    if not out.parent.is_dir():
        raise ValueError(f"`out` {out}: there is no folder {out.parent}")


def name_outputs(model: Model, file: Path) -> Model:
    """Return the model with its outputs named from a file of classes."""
    names = read_class_names(file)
    if len(names) != len(model.classes):
        raise ValueError(f"{file} names {len(names)} classes, the model has {len(model.classes)}")
    ids, words = zip(*names, strict=True)
    return replace(model, classes=words, ids=() if ids == words else ids)


def read_class_names(file: Path) -> list[tuple[str, str]]:
    """Read (id, name) for each output from a .csv, or from a .txt, in which names are also ids."""
    if file.suffix != ".txt":
        return read_class_list(file)
    names = [line.strip() for line in read_text(file).splitlines()]
    if not names:
        raise ValueError(f"{file} names no class")
    for line, name in enumerate(names, 1):
        if not name:
            raise ValueError(f"{file}:{line}: an empty line instead of a name")
        if name in names[: line - 1]:
            raise ValueError(
                f"{file}:{line}: {name!r} a second time; a .csv of index,id,name can "
                "distinguish the two by their ids"
            )
    return [(name, name) for name in names]
