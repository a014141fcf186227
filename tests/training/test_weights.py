"""Runs start from model files, and from files of other programs that determine their network."""

from pathlib import Path

import pytest
import torch
from tests.models.convert.states import State, a_model, torchvision_like

from reslab.api.train import train
from reslab.models.config import cifar_config
from reslab.models.convert.layouts import AKAMASTER, torchvision_state
from reslab.models.model_file import model_bytes
from reslab.recipes import recipe
from reslab.training.weights import is_foreign, load_classifier


def akamaster_file(file: Path) -> Path:
    """Write a random ResNet-20 for ten classes under akamaster's names."""
    model = a_model(cifar_config(20).model_copy(update={"zeros": "both"}))
    names = AKAMASTER.names(model.resnet) | {"fc.weight": "linear.weight", "fc.bias": "linear.bias"}
    weights = model.net.state_dict()
    state: State = {f"module.{theirs}": weights[ours] for ours, theirs in names.items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, file)
    return file


def test_a_run_starts_from_another_programs_weights(tmp_path: Path) -> None:
    file = akamaster_file(tmp_path / "w.pth.tar")
    lines: list[str] = []
    changed = recipe("digits-resnet20", weights=file).with_changes(["iterations=1"])
    assert changed.model.zeros == "both"
    train(
        changed, tmp_path / "run", weights=file,
        on_event=lambda event: lines.append(str(event.get("text"))),
    )  # fmt: skip
    assert f"{file}: resnet20, from akamaster's names" in lines
    # the digest in the recipe is that of the imported weights, whenever they are read
    assert changed.weights == recipe("digits-resnet20", weights=file).weights


def test_classes_of_a_cifar_net_are_named(tmp_path: Path) -> None:
    assert load_classifier(akamaster_file(tmp_path / "w.th")).classes[:2] == (
        "airplane",
        "automobile",
    )


def test_model_files_are_loaded_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(model_bytes(a_model(cifar_config(8))))
    assert not is_foreign(file)
    assert load_classifier(file).notes == ()
    assert not is_foreign(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="no model at"):
        load_classifier(tmp_path / "nowhere.pth")


def test_a_folder_of_hugging_face_is_foreign(tmp_path: Path) -> None:
    state = torchvision_state(a_model(torchvision_like("resnet18")))
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert is_foreign(tmp_path)
    notes = load_classifier(tmp_path).notes
    assert notes == (f"{tmp_path / 'pytorch_model.bin'}: resnet18, from torchvision's names",)


def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    file = akamaster_file(tmp_path / "w.th")
    with pytest.raises(ValueError, match=r"belong to a net with 20 layers, .*32 layers"):
        recipe("digits-resnet32", weights=file)
