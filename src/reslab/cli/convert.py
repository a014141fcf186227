"""`reslab import`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.console import AsJson, ClassNames, print_json, print_line

if TYPE_CHECKING:
    from reslab.models.preprocessing import Preprocessing


WORDS = {
    ("stride_on", "1x1"): "stride of a bottleneck: on its first 1x1",
    ("stride_on", "3x3"): "stride of a bottleneck: on its 3x3",
    ("pool", "ceil"): "first pooling: not padded, its last window may extend past the edge",
    ("pool", "padded"): "first pooling: padded by one pixel",
    ("zeros", "both"): "option A: zeros on both sides of the channels",
}


def import_(
    file: Annotated[
        Path, typer.Argument(help="A file of weights, recognised by its content, not its suffix.")
    ],
    out: Annotated[Path, typer.Option(help="The model file to write, .safetensors.")],
    network: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="The network's name, if several fit; `reslab models` lists them.",
        ),
    ] = None,
    classes: ClassNames = None,
    mean: Annotated[
        Path | None,
        typer.Option(
            help="The mean to subtract from images, .npy, .npz or .binaryproto, [3] or [3, H, W]; "
            "BGR for the authors' Caffe layout."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a model file from another program's weights.

    Recognises the layouts of torchvision and timm, Hugging Face, MMPretrain, akamaster's CIFAR
    nets, the authors' Caffe models, and reslab by the names of the weights. Class names found with
    the weights are kept.
    """
    from reslab.api.import_weights import import_weights

    made = import_weights(file, network, out, classes=classes, mean=mean)
    if as_json:
        print_json(made.as_dict())
        return
    imported, model = made.imported, made.model
    print_line(f"{out}: {made.network}, from {imported.layout.title}")
    for field, value in imported.decided.items():
        usual = getattr(imported.asked, field)
        other = "" if usual == value else f" ({made.network} by itself has {field}={usual})"
        print_line(WORDS[field, value] + other)
    print_line(f"preprocessing: {preprocessing_in_words(model.preprocessing)}")
    print_line(f"outputs: {len(model.classes)}, {model.classes[0]} to {model.classes[-1]}")
    if model.folded:
        print_line("batch norm: folded into the convolutions; fine-tuning must keep it frozen")


def preprocessing_in_words(preprocessing: "Preprocessing") -> str:
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
