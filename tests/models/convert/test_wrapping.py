"""A network's tensors are found at any depth; what else a file holds is named."""

from pathlib import Path

import pytest
import torch
from tests.models.convert.states import State

from reslab.models.convert.tensor_files import Weights, read_tensors


def around(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def reread(content: object, folder: Path) -> Weights:
    torch.save(content, folder / "w.pth")
    return read_tensors(folder / "w.pth")


def test_facts_and_other_tensors_are_beside_the_network(tmp_path: Path, small_18: State) -> None:
    momentum = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    names = {"ant": 0, "bee": 1}
    state = around("module.net.", small_18) | {"module.loss.weight": torch.ones(3)}
    content = {"run": {"model": state, "data": {"class_to_idx": names}}, "optimizer": momentum}
    weights = reread(content, tmp_path)
    assert weights.tensors.keys() == small_18.keys()
    assert weights.prefix == "run.model.module.net."
    assert weights.left_out == ("run.model.module.loss", "optimizer")
    assert weights.fact("class_to_idx") == names
    assert weights.fact("param_groups") == [{"lr": 0.1}]
    assert weights.fact("arch") is None


def test_a_running_average_is_left_out_unless_it_is_alone(tmp_path, small_18) -> None:
    average = {name: tensor + 1 for name, tensor in small_18.items()}
    content = {"state_dict_ema": average, "state_dict": small_18}
    weights = reread(content, tmp_path)
    assert torch.equal(weights.tensors["conv1.weight"], small_18["conv1.weight"])
    assert weights.left_out == ("state_dict_ema",)
    weights = reread({"state_dict_ema": average}, tmp_path)
    assert torch.equal(weights.tensors["conv1.weight"], average["conv1.weight"])


def test_two_networks_are_named(tmp_path: Path, small_18: State) -> None:
    with pytest.raises(ValueError, match=r"2 networks, a, b\.net: save the one you want"):
        reread({"a": small_18, "b": {"net": small_18}}, tmp_path)
