"""The model file: weights, configuration, classes and preprocessing in one safetensors file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import reslab
from reslab.models.resnet import ResNet, ResNetConfig, channels_last

WRITTEN = {"config", "classes", "recipe", "metrics"}  # what a use of the file needs
MEAN_NAME = "preprocessing.pixel_mean"


@dataclass(frozen=True)
class Model:
    """A trained network with all that its use needs."""

    net: ResNet
    classes: tuple[str, ...]
    pixel_mean: Tensor  # [3, H, W], 0 to 255, subtracted from every picture
    recipe: dict[str, Any]
    metrics: list[dict[str, Any]]

    def to(self, device: torch.device) -> "Model":
        """The same model on a device; the network itself moves."""
        return replace(self, net=self.net.to(device), pixel_mean=self.pixel_mean.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> scores before the softmax, [B, classes]."""
        pictures = images.float() - self.pixel_mean
        return self.net(pictures.contiguous(memory_format=torch.channels_last))


def model_bytes(model: Model) -> bytes:
    """The model file as bytes."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.net.state_dict().items()}
    metadata = {
        "reslab": reslab.__version__,
        "config": model.net.config.model_dump_json(),
        "classes": json.dumps(model.classes),
        "preprocessing": json.dumps({"subtract": MEAN_NAME, "range": [0, 255]}),
        "recipe": json.dumps(model.recipe),
        "metrics": json.dumps(model.metrics),
        "batch_norm_folded": "false",
    }
    return save(tensors | {MEAN_NAME: model.pixel_mean.contiguous().cpu()}, metadata)


def load(path: str | Path) -> Model:
    """A model file, or the one in a run folder; strict: every weight is there and no other."""
    file = Path(path)
    file = file / "model.safetensors" if file.is_dir() else file
    if not file.exists():
        raise ValueError(f"no model at {file}; give a finished run folder or a model file")
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            names = opened.keys()
            tensors = {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is no model file, or a damaged one ({error})") from None
    if not metadata.keys() >= WRITTEN or MEAN_NAME not in tensors:
        raise ValueError(f"{file} was not written by reslab: it holds no configuration")
    pixel_mean = tensors.pop(MEAN_NAME)
    net = ResNet(ResNetConfig.model_validate_json(metadata["config"]))
    try:
        net.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} does not fit its own configuration: {reason}") from None
    return Model(
        net=channels_last(net.eval()).requires_grad_(False),
        classes=tuple(json.loads(metadata["classes"])),
        pixel_mean=pixel_mean,
        recipe=json.loads(metadata["recipe"]),
        metrics=json.loads(metadata["metrics"]),
    )


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """One digest of names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
