"""`reslab import`"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.console import print_json, print_line, warn
from reslab.errors import os_reason

if TYPE_CHECKING:
    from reslab.models.convert.importer import Imported
    from reslab.models.model_file import Model
    from reslab.models.preprocessing import Preprocessing


WORDS = {
    ("stride_on", "1x1"): "stride of a bottleneck: on its first 1x1",
    ("stride_on", "3x3"): "stride of a bottleneck: on its 3x3",
    ("pool", "ceil"): "first pooling: not padded, its last window may reach over the edge",
    ("pool", "padded"): "first pooling: padded by one pixel",
    ("zeros", "both"): "option A: zeros on both sides of the channels",
}


def import_(
    file: Annotated[Path, typer.Argument(help="Weights: .safetensors, .pth, .pt, .th or .npz.")],
    network: Annotated[
        str, typer.Option("--as", help="The network's name; `reslab models` lists them.")
    ],
    out: Annotated[Path, typer.Option(help="The model file to write, .safetensors.")],
    classes: Annotated[
        Path | None,
        typer.Option(help="Names of the outputs: .csv of index,id,name, or .txt, one a line."),
    ] = None,
    mean: Annotated[
        Path | None,
        typer.Option(
            help="What is subtracted, .npy or .npz of [3] or [3, H, W]; for the authors' Caffe "
            "layout blue first."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Make a model file of weights from elsewhere, recognised by their names.

    torchvision's and timm's, akamaster's CIFAR nets, the authors' Caffe layers, and reslab's own.
    """
    from reslab.models.convert.importer import import_model
    from reslab.models.model_file import model_bytes
    from reslab.runtime.files import atomic_write

    check_new(out, (".safetensors",))
    imported = import_model(file, network, mean)
    model = named_by(classes, imported.model) if classes else named(imported)
    atomic_write(out, model_bytes(model))
    if as_json:
        print_json(facts(imported, model, network, out))
        return
    print_line(f"{out}: {network}, from {imported.layout.title}")
    for field, value in imported.decided.items():
        by_name = getattr(imported.asked, field)
        other = "" if by_name == value else f" ({network} by itself has {field}={by_name})"
        print_line(WORDS[field, value] + other)
    print_line(f"preprocessing: {in_words(model.preprocessing)}")
    print_line(f"outputs: {len(model.classes)}, {model.classes[0]} to {model.classes[-1]}")
    if model.folded:
        print_line(
            "batch norm: folded into the convolutions; only frozen is right when fine-tuning"
        )


def check_new(out: Path, suffixes: Sequence[str]) -> None:
    """Before any work: a file of the right kind that is not there yet, in a folder that is."""
    if out.suffix not in suffixes:
        raise ValueError(f"--out {out}: the file is to end in {' or '.join(suffixes)}")
    if out.exists():
        raise ValueError(f"--out {out} is there already: name another, or remove it first")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")


def read_names(file: Path) -> list[tuple[str, str]]:
    """(id, name) of each output; in a .txt the names are the ids."""
    from reslab.data.datasets import read_class_list

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
            raise ValueError(f"{file}:{line}: an empty line where a name is to be")
        if name in names[: line - 1]:
            raise ValueError(
                f"{file}:{line}: {name!r} for a second time; a .csv of index,id,name tells them "
                "apart by their ids"
            )
    return [(name, name) for name in names]


def named_by(file: Path, model: "Model") -> "Model":
    """The model, its outputs named by a file."""
    names = read_names(file)
    if len(names) != len(model.classes):
        raise ValueError(f"{file} names {len(names)} classes, the model has {len(model.classes)}")
    ids, words = zip(*names, strict=True)
    return replace(model, classes=words, ids=() if ids == words else ids)


def named(imported: "Imported") -> "Model":
    """The model with CIFAR-10's names for its outputs, where its layout says so."""
    from reslab.data.cifar10 import CIFAR10_CLASSES
    from reslab.models.convert.layouts import AKAMASTER

    model = imported.model
    outputs = len(model.classes)
    if imported.layout is AKAMASTER and outputs == len(CIFAR10_CLASSES):
        return replace(model, classes=CIFAR10_CLASSES)
    warn(f"the {outputs} outputs are called 0 to {outputs - 1}; --classes FILE names them")
    return model


def in_words(preprocessing: "Preprocessing") -> str:
    """What is done to an image, in one line."""
    red, green, blue = preprocessing.mean.mean((1, 2)).tolist()
    image = preprocessing.mean.shape[-2:]
    kind = "mean" if tuple(image) == (1, 1) else f"a mean image {list(image)} of average"
    parts = [f"{preprocessing.channels}, {kind} {red:.3f} {green:.3f} {blue:.3f} (R G B)"]
    if (preprocessing.std != 1).any():
        parts.append("deviation " + " ".join(f"{v:.3f}" for v in preprocessing.std.flatten()))
    if preprocessing.size:
        parts.append(f"shorter side {preprocessing.resize}, centre {preprocessing.size}")
    else:
        parts.append("images as they come")
    return ", ".join(parts)


def facts(imported: "Imported", model: "Model", network: str, out: Path) -> dict[str, Any]:
    """What import found and decided, for `--json`."""
    prepared = model.preprocessing
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
