"""Weights under other libraries' names, and the advice for the user."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.models.convert.states import a_model, torchvision_like

import reslab
from reslab.api.export_weights import crop_fraction, export_timm, export_torchvision, timm_call
from reslab.models.preprocessing import Preprocessing


@pytest.mark.parametrize("size", [24, 32, 224, 225, 288])
def test_timm_resizes_to_the_same_shorter_side(size: int) -> None:
    for resize in range(size, 2 * size):
        assert math.floor(size / crop_fraction(resize, size)) == resize
    assert crop_fraction(256, 224) == 0.875


def test_timm_gets_the_weights_of_torchvision_and_the_models_preprocessing(tmp_path: Path) -> None:
    model = a_model(torchvision_like("resnet18"))
    torchvision = export_torchvision(model, tmp_path / "torchvision.safetensors")
    timm = export_timm(model, tmp_path / "timm.safetensors")
    assert torchvision.path.read_bytes() == timm.path.read_bytes()
    assert "Normalize" in str(torchvision)
    built = evaluated(timm.advice[0])
    assert built["name"] == "resnet18"
    assert built["num_classes"] == len(model.classes)
    assert load_file(built["checkpoint_path"]).keys() == load_file(timm.path).keys()
    config = built["pretrained_cfg_overlay"]
    assert (config["input_size"], config["crop_pct"]) == ((3, 224, 224), 0.875)
    assert config["interpolation"] == "bilinear"
    preprocessing = Preprocessing.of(
        [255 * value for value in config["mean"]], [255 * value for value in config["std"]]
    )
    assert torch.allclose(preprocessing.mean, model.preprocessing.mean, atol=1e-3)
    assert torch.allclose(preprocessing.std, model.preprocessing.std, atol=1e-3)


def evaluated(call: str) -> dict[str, Any]:
    """Return the arguments of a call of timm.create_model."""

    class timm:
        @staticmethod
        def create_model(name: str, **arguments: object) -> dict[str, Any]:
            return {"name": name, **arguments}

    found: dict[str, dict[str, Any]] = {}
    exec(call, {"timm": timm}, found)  # as a user would paste it
    return found["model"]


def test_whole_images_need_no_crop() -> None:
    model = a_model(torchvision_like("resnet18"))
    whole = reslab.Preprocessing(model.preprocessing.mean, model.preprocessing.std)
    assert "crop_pct" not in timm_call(replace(model, preprocessing=whole), Path("net.pth"))
