"""Networks, their state dicts, and files of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reslab.models.config import ResNetConfig, config_named
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet

State = dict[str, Tensor]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_model(config: ResNetConfig, seed: int = 0, **preprocessing) -> Model:
    """A network whose batch norms are all different, with torchvision's preprocessing."""
    net = build_resnet(config, rng(seed)).eval()
    for norm in [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.2, 0.8, generator=rng(seed + 1))
        nn.init.uniform_(norm.bias, -0.5, 0.5, generator=rng(seed + 2))
        channels = norm.num_features
        norm.running_mean = 2 * torch.rand(channels, generator=rng(seed + 3)) - 1
        norm.running_var = 0.5 + torch.rand(channels, generator=rng(seed + 4))
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None] * 255
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255
    prepared = replace(Preprocessing(mean, std, resize=256, size=224), **preprocessing)
    return Model(net, tuple(map(str, range(config.classes))), prepared, {}, [])


def torchvision_like(name: str, classes: int = 5) -> ResNetConfig:
    update = {"pool": "padded", "classes": classes}
    return config_named(name).model_copy(update=update)


def saved(state: State, file: Path) -> Path:
    save_file(state, file)
    return file


def save_npz(state: State, file: Path) -> None:
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in state.items()}
    np.savez(file, **arrays)
