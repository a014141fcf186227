"""Class names and settings that other programs store with the weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from reslab.models.convert.beside import Sidecar, class_names, read_sidecar
from reslab.models.convert.layouts import AKAMASTER, HUGGING_FACE, TORCHVISION
from reslab.models.convert.wrapping import Weights

NONE = Weights({}, {})
ANTS = ("ant", "bee", "cat")


@pytest.mark.parametrize(
    "facts",
    [
        {"class_to_idx": {"bee": 1, "cat": 2, "ant": 0}},
        {"checkpoint": {"idx_to_class": {"0": "ant", "1": "bee", "2": "cat"}}},
        {"meta": {"CLASSES": [*ANTS], "epoch": 3}},
        {"meta": {"dataset_meta": {"classes": [*ANTS]}}},
        {"class_names": [*ANTS], "classes": 3},
        {"labels": [0, 1, 2], "names": [*ANTS]},
    ],
)
def test_names_in_the_file(facts: dict[str, Any]) -> None:
    assert class_names(Weights({}, facts), Sidecar(), 3) == (ANTS, "")


@pytest.mark.parametrize(
    ("facts", "note"),
    [
        ({"class_to_idx": {"ant": 0, "bee": 2, "cat": 3}}, ""),
        ({"classes": ["ant", 1, 2]}, ""),
        ({"classes": {"ant": "x"}}, ""),
        ({"classes": "ant"}, ""),
        ({"classes": ["ant", "bee"]}, "classes names 2 classes, but there are 3 outputs"),
    ],
)
def test_what_does_not_name_every_output_is_not_used(facts: dict[str, Any], note: str) -> None:
    assert class_names(Weights({}, facts), Sidecar(), 3) == ((), note)


def test_repeated_names_have_their_numbers() -> None:
    facts = {"classes": ["crane", "kite", "crane"]}
    assert class_names(Weights({}, facts), Sidecar(), 3)[0] == ("crane (0)", "kite", "crane (2)")


def write(folder: Path, name: str, content: object) -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / "model.safetensors"


def test_hugging_faces_files(tmp_path: Path) -> None:
    names = {"2": "cat", "0": "ant", "1": "bee"}
    config = {"model_type": "resnet", "id2label": names, "downsample_in_bottleneck": True}
    file = write(tmp_path, "config.json", config)
    write(tmp_path, "preprocessor_config.json", {"image_mean": [0.2, 0.4, 0.6], "image_std": 0.5})
    sidecar = read_sidecar(file, HUGGING_FACE, NONE)
    assert (sidecar.stride_on, sidecar.std) == ("1x1", None)
    assert sidecar.mean == pytest.approx((51, 102, 153))
    assert class_names(NONE, sidecar, 3)[0] == ANTS
    unnamed = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    assert class_names(NONE, Sidecar(unnamed), 2) == ((), "")
    assert read_sidecar(file, AKAMASTER, NONE) == Sidecar()


def test_hugging_faces_nets_with_other_layers_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "config.json", {"model_type": "resnet", "hidden_act": "gelu"})
    with pytest.raises(ValueError, match=r"config.json: hidden_act is 'gelu', but .* 'relu'"):
        read_sidecar(file, HUGGING_FACE, NONE)


def test_timms_file(tmp_path: Path) -> None:
    images = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config = {"architecture": "resnet18", "label_names": [*ANTS], "pretrained_cfg": images}
    sidecar = read_sidecar(write(tmp_path, "config.json", config), TORCHVISION, NONE)
    assert (sidecar.mean, sidecar.std) == ((127.5,) * 3, (127.5,) * 3)
    assert class_names(NONE, sidecar, 3)[0] == ANTS
    other = write(tmp_path, "config.json", {"label_names": [*ANTS]})  # of another program
    assert read_sidecar(other, TORCHVISION, NONE) == Sidecar()


def test_mmpretrains_settings(tmp_path: Path) -> None:
    text = (
        "model = dict(backbone=dict(type='ResNet', depth=50, style='caffe'))\n"
        "data_preprocessor = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], "
        "to_rgb=False)"
    )
    weights = Weights({}, {"meta": {"cfg": text}})
    sidecar = read_sidecar(tmp_path / "w.pth", TORCHVISION, weights)
    assert (sidecar.stride_on, sidecar.channels) == ("1x1", "BGR")
    assert sidecar.mean == (123.675, 116.28, 103.53)  # RGB, as everywhere here
    usual = text.replace("False", "True").replace("caffe", "pytorch")
    sidecar = read_sidecar(tmp_path / "w.pth", TORCHVISION, Weights({}, {"meta": {"cfg": usual}}))
    assert (sidecar.stride_on, sidecar.channels, sidecar.mean) == (
        None,
        "RGB",
        (103.53, 116.28, 123.675),
    )


@pytest.mark.parametrize(
    "content", ["", "[", "[1]", "[" * 100_000, '{"mean": 1' + "0" * 9999 + "}"]
)
def test_a_damaged_config_is_named_where_it_matters(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        read_sidecar(tmp_path / "w.safetensors", HUGGING_FACE, NONE)
    assert read_sidecar(tmp_path / "w.safetensors", TORCHVISION, NONE) == Sidecar()
