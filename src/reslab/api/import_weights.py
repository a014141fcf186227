"""Import weights from other programs, and export weights to them."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from reslab.data.cifar10 import CIFAR10_CLASSES
from reslab.data.datasets import read_class_list
from reslab.errors import os_reason, unknown_name
from reslab.models.convert.importer import Imported, import_model
from reslab.models.convert.layouts import AKAMASTER, USUAL_MEAN, USUAL_STD, torchvision_state
from reslab.models.model_file import Model, load_model, model_bytes
from reslab.runtime.events import Callback, note, silent
from reslab.runtime.files import atomic_write

TORCH_SUFFIXES = (".pth", ".pt")
TARGETS = ("torchvision",)


def import_weights(
    file: Path,
    network: str,
    out: Path,
    *,
    classes: Path | None = None,
    mean: Path | None = None,
    on_event: Callback = silent,
) -> Imported:
    """Write the model file `out` from weights whose layout is recognised by the parameter names.

    `network` is a name from `reslab models`; the file `classes` names the outputs; the file `mean`
    holds the mean to subtract from images, if the layout does not determine it.
    """
    check_new_file(out, (".safetensors",))
    imported = import_model(file, network, mean)
    if classes:
        model = name_outputs(imported.model, classes)
    else:
        model = name_cifar10_outputs(imported, on_event)
    atomic_write(out, model_bytes(model))
    return replace(imported, model=model)


def import_facts(imported: Imported, network: str, out: Path) -> dict[str, Any]:
    """Return a description of an imported model file, for JSON."""
    model, prepared = imported.model, imported.model.preprocessing
    return {
        "model": str(out),
        "network": network,
        "layout": imported.layout.title,
        "decided": imported.decided,
        "config": model.net.config.model_dump(),
        "preprocessing": {
            "channels": prepared.channels,
            "mean": prepared.mean.mean((1, 2)).tolist(),
            "std": prepared.std.flatten().tolist(),
            "resize": prepared.resize,
            "size": prepared.size,
        },
        "classes": list(model.classes),
        "ids": list(model.ids),
        "batch_norm_folded": model.folded,
    }


def check_new_file(out: Path, suffixes: Sequence[str]) -> None:
    """Raise ValueError, before any work, if `out` exists or has the wrong suffix."""
    if out.suffix not in suffixes:
        raise ValueError(f"--out {out}: the file is to end in {' or '.join(suffixes)}")
    if out.exists():
        raise ValueError(f"--out {out} is there already: name another, or remove it first")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")


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
    try:
        names = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
    except OSError as error:
        raise ValueError(f"{file}: {os_reason(error)}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text") from None
    if not names:
        raise ValueError(f"{file} names no class")
    for line, name in enumerate(names, 1):
        if not name:
            raise ValueError(f"{file}:{line}: an empty line instead of a name")
        if name in names[: line - 1]:
            raise ValueError(
                f"{file}:{line}: {name!r} for a second time; a .csv of index,id,name can "
                "distinguish the two by their ids"
            )
    return [(name, name) for name in names]


def name_cifar10_outputs(imported: Imported, on_event: Callback) -> Model:
    """Name the outputs after CIFAR-10 if the layout is for CIFAR-10 nets; else keep numbers."""
    model = imported.model
    outputs = len(model.classes)
    if imported.layout is AKAMASTER and outputs == len(CIFAR10_CLASSES):
        return replace(model, classes=CIFAR10_CLASSES)
    on_event(
        note(f"the {outputs} outputs are called 0 to {outputs - 1}; --classes FILE names them")
    )
    return model


def export_weights(model: Path, to: str, out: Path) -> tuple[dict[str, Any], list[str]]:
    """Write a model's weights for another program, in which they compute the same function.

    Return facts for JSON, with mean and standard deviation as in torchvision's Normalize (images
    from 0 to 1, RGB), and lines of advice that the user needs to apply the weights. Raise
    ValueError, with the reason, if the program cannot represent the network.
    """
    if to not in TARGETS:
        raise ValueError(unknown_name("target of export", to, TARGETS))
    check_new_file(out, (".safetensors", *TORCH_SUFFIXES))
    loaded = load_model(model)
    state = torchvision_state(loaded)
    atomic_write(out, state_bytes(state, out.suffix))
    mean, std = loaded.preprocessing.mean.mean((1, 2)), loaded.preprocessing.std.flatten()
    facts = {
        "file": str(out),
        "tensors": len(state),
        "mean": [round(value / 255, 6) for value in mean.tolist()],
        "std": [round(value / 255, 6) for value in std.tolist()],
        "depth": loaded.net.config.depth,
        "outputs": len(loaded.classes),
    }
    return facts, advice_for_user(loaded, facts["mean"], facts["std"])


def state_bytes(state: dict[str, Tensor], suffix: str) -> bytes:
    """Encode a state dict in the file format of `suffix`."""
    if suffix not in TORCH_SUFFIXES:
        return save(state, {"format": "pt"})
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def advice_for_user(model: Model, mean: list[float], std: list[float]) -> list[str]:
    pairs = zip(mean + std, USUAL_MEAN + USUAL_STD, strict=True)
    usual = all(abs(255 * value - known) < 0.01 for value, known in pairs)
    verdict = "torchvision's usual" if usual else "NOT torchvision's usual"
    lines = [f"images of 0 to 1, red first: Normalize(mean={mean}, std={std}), {verdict}"]
    if model.preprocessing.mean.shape[-2:] != (1, 1):
        lines.append("the model subtracts a mean image; the line above has its average colour")
    if model.preprocessing.channels == "BGR":
        lines.append("the first convolution, which saw blue first, was turned to see red first")
    return lines
