"""`reslab export`"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.console import AsJson, print_json, print_line


def export(
    model: Annotated[Path, typer.Argument(help="A run folder or a model file.")],
    to: Annotated[str, typer.Option(help="Whose names: torchvision (timm uses the same).")],
    out: Annotated[Path, typer.Option(help="The file to write: .safetensors, .pth or .pt.")],
    as_json: AsJson = False,
) -> None:
    """Write a model's weights for another program, which then computes the same function.

    Refuses a net that the other program cannot compute, and says why.
    """
    from reslab.api.import_weights import export_weights

    exported, advice = export_weights(model, to, out)
    if as_json:
        print_json(asdict(exported))
        return
    print_line(f"{out}: resnet{exported.depth}, {exported.outputs} outputs, torchvision's names")
    for line in advice:
        print_line(line)
