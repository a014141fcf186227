"""`reslab export`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.console import print_json, print_line
from reslab.cli.import_ import check_new

if TYPE_CHECKING:
    from torch import Tensor

    from reslab.models.model_file import Model


TORCH_SUFFIXES = (".pth", ".pt")


def export(
    model: Annotated[Path, typer.Argument(help="A run folder or a model file.")],
    to: Annotated[str, typer.Option(help="Whose names: torchvision (timm's are the same).")],
    out: Annotated[Path, typer.Option(help="The file to write, .safetensors, .pth or .pt.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Write a model's weights for another program, which then computes the same function.

    A net that the other program cannot compute is refused, with the reason.
    """
    from reslab.errors import unknown_name
    from reslab.models.convert.exporter import torchvision_state
    from reslab.models.model_file import load_model
    from reslab.runtime.files import atomic_write

    if to != "torchvision":
        raise ValueError(unknown_name("target of export", to, ["torchvision"]))
    check_new(out, (".safetensors", *TORCH_SUFFIXES))
    loaded = load_model(model)
    state = torchvision_state(loaded)
    atomic_write(out, as_bytes(state, out.suffix))
    mean, std = of_0_to_1(loaded)
    if as_json:
        facts = {"file": str(out), "tensors": len(state), "mean": mean, "std": std}
        print_json({**facts, "depth": loaded.net.config.depth, "outputs": len(loaded.classes)})
        return
    outputs = len(loaded.classes)
    print_line(f"{out}: resnet{loaded.net.config.depth}, {outputs} outputs, torchvision's names")
    for line in to_mind(loaded, mean, std):
        print_line(line)


def as_bytes(state: "dict[str, Tensor]", suffix: str) -> bytes:
    """The state dict as a file of that kind."""
    import io

    import torch
    from safetensors.torch import save

    if suffix not in TORCH_SUFFIXES:
        return save(state, {"format": "pt"})
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def of_0_to_1(model: "Model") -> tuple[list[float], list[float]]:
    """Mean colour and deviation of images of 0 to 1, as torchvision's Normalize takes them."""
    mean, std = model.preprocessing.mean.mean((1, 2)), model.preprocessing.std.flatten()
    return [round(v / 255, 6) for v in mean.tolist()], [round(v / 255, 6) for v in std.tolist()]


def to_mind(model: "Model", mean: list[float], std: list[float]) -> list[str]:
    """What a user of the weights has to know and the names do not say."""
    from reslab.models.convert.layouts import USUAL_MEAN, USUAL_STD

    usual = all(
        abs(255 * value - known) < 0.01
        for value, known in zip(mean + std, USUAL_MEAN + USUAL_STD, strict=True)
    )
    own = "torchvision's usual" if usual else "NOT torchvision's usual"
    lines = [f"images of 0 to 1, red first: Normalize(mean={mean}, std={std}), {own}"]
    if model.preprocessing.mean.shape[-2:] != (1, 1):
        lines.append("the model subtracts a mean image; the line above has its average colour")
    if model.preprocessing.channels == "BGR":
        lines.append("the first convolution, which saw blue first, was turned to see red first")
    return lines
