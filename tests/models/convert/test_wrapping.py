"""A network's tensors are found at any depth; what else a file holds is named."""

import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

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


def test_what_is_nested_in_the_network_is_not_part_of_it(tmp_path: Path, small_18: State) -> None:
    momentum = {"state": {0: {"momentum_buffer": torch.ones(3)}}}
    weights = reread(small_18 | {"epoch": 3, "optimizer": momentum, "ema": small_18}, tmp_path)
    assert weights.tensors.keys() == small_18.keys()
    assert weights.left_out == ("optimizer", "ema")


def test_blobs_in_lists_are_one_network(tmp_path: Path, authors_50: State) -> None:
    layers: dict[str, list[torch.Tensor]] = {}
    for name, blob in authors_50.items():
        layers.setdefault(name.split("/")[0], []).append(blob)
    weights = reread({"net": layers}, tmp_path)
    assert weights.prefix == "net."
    assert len(weights.tensors) == len(authors_50)
    assert torch.equal(weights.tensors["fc1000.1"], authors_50["fc1000/1"])


WRAPPERS = ("state_dict", "model", "net", "network", "ema", "checkpoint", "0", "a b", "students")
MODULES = (
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "encoder_q.",
    "net.",
    "_fsdp_wrapped_module.",
)


@pytest.mark.parametrize("seed", range(5))
def test_any_five_wrappers_and_modules(tmp_path: Path, small_18: State, seed: int) -> None:
    chance = random.Random(seed)
    content: Any = around("".join(chance.choices(MODULES, k=chance.randrange(4))), small_18)
    for wrapper in chance.choices(WRAPPERS, k=5):
        content = {"epoch": 3, wrapper: content, "rng": torch.zeros(4, dtype=torch.uint8)}
        content = chance.choice((content, OrderedDict(content), [content], (1, content)))
    weights = reread({"last": content}, tmp_path)
    assert weights.tensors.keys() == small_18.keys()
    assert all(torch.equal(tensor, small_18[name]) for name, tensor in weights.tensors.items())
    assert all(name.endswith("rng") for name in weights.left_out)


TRAINED = {
    "model": "model_ema.module", "student.module.backbone": "teacher.backbone", "net": "swa_model",
    "module.encoder_q": "module.encoder_k", "online_network": "target_network",
    "module.base_encoder": "module.momentum_encoder", "state_dict": "state_dict_ema",
}  # fmt: skip


@pytest.mark.parametrize("trained", TRAINED)
def test_the_trained_network_is_taken(tmp_path: Path, small_18: State, trained: str) -> None:
    average = TRAINED[trained]
    state = around(f"{average}.", small_18) | around(f"{trained}.", small_18)
    weights = reread(state, tmp_path)
    assert weights.prefix == f"{trained}."
    assert all(average.startswith(name) for name in weights.left_out)
