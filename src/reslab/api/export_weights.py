"""Export weights to other programs, under their names."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue
from safetensors.torch import save
from torch import Tensor

from reslab.models.convert.layouts import USUAL_MEAN, USUAL_STD, torchvision_state
from reslab.models.model_file import Model
from reslab.runtime.writing import atomic_write

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)


@dataclass(frozen=True)
class ExportedWeights:
    """A file of weights for another program, and what is needed to use them there."""

    path: Path
    tensors: int  # number of tensors
    mean: tuple[float, ...]  # as in torchvision's Normalize: images from 0 to 1, RGB
    std: tuple[float, ...]
    depth: int
    outputs: int
    advice: tuple[str, ...]  # lines for the user

    def __str__(self) -> str:
        first = f"{self.path}: resnet{self.depth}, {self.outputs} outputs, torchvision's names"
        return "\n".join([first, *self.advice])

    def as_dict(self) -> dict[str, JsonValue]:
        """Return all but the advice for JSON."""
        return {
            "file": str(self.path),
            "tensors": self.tensors,
            "mean": [*self.mean],
            "std": [*self.std],
            "depth": self.depth,
            "outputs": self.outputs,
        }


def export_torchvision(model: Model, out: Path) -> ExportedWeights:
    """Write a model's weights under torchvision's names, which timm reads too.

    Raise ValueError, with the reason, if torchvision cannot represent the network.
    """
    state = torchvision_state(model)
    atomic_write(out, state_bytes(state, out.suffix))
    mean, std = model.preprocessing.mean.mean((1, 2)), model.preprocessing.std.flatten()
    mean, std = (tuple(round(value / 255, 6) for value in part.tolist()) for part in (mean, std))
    return ExportedWeights(
        out, len(state), mean, std, model.config.depth, len(model.classes),
        advice=tuple(advice_for_user(model, list(mean), list(std))),
    )  # fmt: skip


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
        lines.append("the inputs of the first convolution were reordered from BGR to RGB")
    return lines
