"""Files that are not weights are refused in one line; no code in them is run."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.models.convert.states import State, a_model, save_npz

from reslab.models.config import cifar_config
from reslab.models.convert import tensor_files
from reslab.models.convert.tensor_files import read_mean, read_tensors
from reslab.models.model_file import model_bytes
from reslab.runtime.files import TensorFile


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
    assert "its array a.npy holds Python objects" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "npz"])
def test_a_file_that_is_cut_short_is_one_line(tmp_path: Path, suffix: str) -> None:
    state = {"conv1.weight": torch.rand(64, 3, 7, 7)}
    file = tmp_path / f"w.{suffix}"
    if suffix == "npz":
        save_npz(state, file)
    else:
        save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert f"{file} is cut short or damaged: download or copy it again" in refusal(file)


def test_content_decides_how_a_file_is_read(tmp_path: Path, small_18: State) -> None:
    torch.save(small_18, tmp_path / "torch.npz")
    save_npz(small_18, tmp_path / "numpy.npz")
    (tmp_path / "numpy.npz").rename(tmp_path / "numpy")
    save_file(small_18, tmp_path / "safe.tar")
    for name in ("torch.npz", "numpy", "safe.tar"):
        read = read_tensors(tmp_path / name).tensors
        assert all(torch.equal(tensor, small_18[name]) for name, tensor in read.items())
        assert read.keys() == small_18.keys()


def test_files_that_need_no_reading(tmp_path: Path) -> None:
    assert refusal(tmp_path / "w.pth") == f"no file {tmp_path / 'w.pth'}"
    (tmp_path / "m.safetensors").write_bytes(model_bytes(a_model(cifar_config(8))))
    assert "already" in refusal(tmp_path / "m.safetensors")
    facts = {"iteration": 3, "schedule": {}}
    checkpoint = TensorFile({"weights.stem.0.conv.weight": torch.ones(1)}, facts)
    (tmp_path / "00000003").write_bytes(checkpoint.to_bytes())
    assert "is a checkpoint of a reslab run: `reslab resume`" in refusal(tmp_path / "00000003")
    assert f"{tmp_path} is a folder: name the file of weights in it" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.pth")
    assert "not a regular file" in refusal(tmp_path / "pipe.pth")


def test_archives_that_unpack_to_more_than_weights_are_refused(tmp_path, monkeypatch) -> None:
    np.savez_compressed(tmp_path / "w.npz", a=np.zeros(10**6))
    monkeypatch.setattr(tensor_files, "MOST_UNPACKED", 10**6)
    assert "unpacks to 8,000,128 bytes" in refusal(tmp_path / "w.npz")


def test_a_tensor_larger_than_its_numbers_is_not_expanded(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1).expand(2**39)}, tmp_path / "w.pth")
    assert "holds 549,755,813,888 numbers" in refusal(tmp_path / "w.pth")


def test_a_type_of_number_that_torch_cannot_compute_with_is_named(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}'
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"12")
    assert "holds 'a' as a F4 tensor, but weights are dense" in refusal(tmp_path / "w.safetensors")


def test_numpys_texts_are_facts(tmp_path: Path) -> None:
    weight: Any = np.ones((2, 3), ">f4")
    np.savez(tmp_path / "w.npz", classes=np.array(["ant", "bee"]), weight=weight)
    weights = read_tensors(tmp_path / "w.npz")
    assert weights.fact("classes") == ["ant", "bee"]
    assert torch.equal(weights.tensors["weight"], torch.ones(2, 3))


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
    assert "or damaged" in refusal(mean, read_mean)
    assert "no file" in refusal(tmp_path / "other.npy", read_mean)
