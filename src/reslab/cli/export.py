"""`reslab export`"""

from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.console import AsJson, print_json, print_line


def export(
    model: Annotated[Path, typer.Argument(help="A run folder, a model file or a name.")],
    to: Annotated[
        str,
        typer.Option(help="onnx, onnx-int8, openvino, torch-export, torchvision or timm."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; by default beside the model.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="A folder of images for the proof; by default the model's test images."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Resize to exactly the pixels of Pillow; slower.")
    ] = False,
    vnni: Annotated[
        bool,
        typer.Option("--vnni", help="onnx-int8: for files that stay on processors with VNNI."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model for another runtime, or its weights for another program.

    A file for a runtime holds the preprocessing and the names of the classes. It is written only if
    it answers there as reslab does, which is printed. Fails, with the reason, if the format cannot
    represent the network.
    """
    from reslab.api.export import export as export_model

    exported = export_model(model, to, out, check=check, exact=exact, vnni=vnni)
    if as_json:
        print_json(exported.as_dict())
    else:
        print_line(str(exported))
