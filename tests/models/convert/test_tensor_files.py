"""Files that are not weights are refused in one line; no code in them is run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.models.convert.states import State, a_model, save_npz

from reslab.models.config import cifar_config
from reslab.models.convert.tensor_files import read_mean, read_tensors
from reslab.models.model_file import model_bytes


def refusal(file: Path, read: Callable[[Path], object] = read_tensors) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_that_are_no_weights(tmp_path: Path, small_18: State) -> None:
    file = tmp_path / "w.pth"
    torch.save(small_18 | {"bn1.bias": torch.full((64,), torch.nan)}, file)
    assert "'bn1.bias' holds values that are not finite" in refusal(file)
    torch.save(small_18 | {"bn1.bias": torch.zeros(64, dtype=torch.int8)}, file)
    assert "'bn1.bias' holds torch.int8 numbers" in refusal(file)
    torch.save([torch.zeros(2)], file)
    assert "holds a list instead of named tensors" in refusal(file)


class Innocent:
    """A class that can be unpickled only from a trusted file."""


def test_a_pickle_that_needs_more_than_weights_is_refused(tmp_path, small_18) -> None:
    torch.save({"state_dict": small_18, "args": Innocent()}, tmp_path / "w.pth")
    reported = refusal(tmp_path / "w.pth")
    assert "Innocent, which could run code" in reported


def test_an_npz_of_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.array([{}], dtype=object))
    assert "Object arrays cannot be loaded" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "npz"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_files_that_are_no_weights_are_one_line(tmp_path, suffix, damage) -> None:
    state = {"conv1.weight": torch.rand(64, 3, 7, 7)}
    file = tmp_path / f"w.{suffix}"
    if suffix == "npz":
        save_npz(state, file)
    else:
        save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    data = file.read_bytes()
    file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"hello\nworld"}[damage])
    assert "or is damaged" in refusal(file)


def test_other_files_are_refused_by_what_they_are(tmp_path: Path) -> None:
    assert refusal(tmp_path / "w.pth") == f"no file {tmp_path / 'w.pth'}"
    for suffix in (".xz", ".onnx"):
        (tmp_path / f"w{suffix}").write_bytes(b"x")
    assert "first `xz -dk" in refusal(tmp_path / "w.xz")
    assert ".safetensors, .pth, .pt, .th, .npz" in refusal(tmp_path / "w.onnx")
    (tmp_path / "m.safetensors").write_bytes(model_bytes(a_model(cifar_config(8))))
    assert "already" in refusal(tmp_path / "m.safetensors")


def test_a_mean_that_is_none_is_refused(tmp_path: Path) -> None:
    mean = tmp_path / "mean.npy"
    for array, reason in [
        (np.zeros((4, 5)), "[4, 5]"),
        (np.full(3, 0.5), "for pixels from 0 to 255"),
        (np.full(3, np.inf), "for pixels from 0 to 255"),
    ]:
        np.save(mean, array)
        assert reason in refusal(mean, read_mean)
    mean.write_bytes(b"no array")
    assert "or is damaged" in refusal(mean, read_mean)
    assert "no file" in refusal(tmp_path / "other.npy", read_mean)
