"""Export weights to other programs, under their names."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
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
TIMM_TRANSFORM = (
    "transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))"
)


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
    return write_weights(model, out, advice_for_user(model, *mean_and_std(model)))


def export_timm(model: Model, out: Path) -> ExportedWeights:
    """Write the same file as for torchvision, with advice in the words of timm."""
    advice = advice_for_user(model, *mean_and_std(model))
    return write_weights(model, out, [timm_call(model, out), TIMM_TRANSFORM, *advice[1:]])


def write_weights(model: Model, out: Path, advice: Sequence[str]) -> ExportedWeights:
    """Write a model's weights under torchvision's names, and describe them."""
    state = torchvision_state(model)
    atomic_write(out, state_bytes(state, out.suffix))
    mean, std = mean_and_std(model)
    return ExportedWeights(
        out, len(state), tuple(mean), tuple(std), model.config.depth, len(model.classes),
        advice=tuple(advice),
    )  # fmt: skip


def mean_and_std(model: Model) -> tuple[list[float], list[float]]:
    """Return the mean colour and the standard deviation of images from 0 to 1, RGB."""
    mean, std = model.preprocessing.mean.mean((1, 2)), model.preprocessing.std.flatten()
    rounded = [[round(value / 255, 6) for value in part.tolist()] for part in (mean, std)]
    return rounded[0], rounded[1]


def timm_call(model: Model, out: Path) -> str:
    """Return the call by which timm builds the network, with its weights and preprocessing."""
    mean, std = mean_and_std(model)
    config = f"mean={tuple(mean)}, std={tuple(std)}"
    preprocessing = model.preprocessing
    resize, size = preprocessing.resize, preprocessing.size
    if resize and size:
        config += f", input_size=(3, {size}, {size}), crop_pct={crop_fraction(resize, size)}"
        config += f', interpolation="{preprocessing.interpolation}"'
    return (
        f'model = timm.create_model("resnet{model.config.depth}", num_classes={len(model.classes)},'
        f" checkpoint_path={json.dumps(str(out))}, pretrained_cfg_overlay=dict({config}))"
    )


def crop_fraction(resize: int, size: int) -> float:
    """Return timm's `crop_pct`, from which it computes the shorter side, floor(size / crop_pct)."""
    fraction = round(size / resize, 4)
    return fraction if math.floor(size / fraction) == resize else size / (resize + 0.5)


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
