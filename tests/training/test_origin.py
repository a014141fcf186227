from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reslab.data.statistics import Components
from reslab.models.config import config_named
from reslab.models.model_file import Model
from reslab.models.parts import GroupNorm, NoisyBatchNorm
from reslab.models.preprocessing import Preprocessing, minus_mean
from reslab.models.resnet import build_resnet
from reslab.recipes import recipe
from reslab.runtime.files import TensorFile, sha256_of
from reslab.training.folder import RunFolder
from reslab.training.origin import (
    FILE,
    InitialState,
    fit_to_weights,
    initial_state_bytes,
    must_match_weights,
    read_initial_state,
)

RECIPE = recipe("digits-resnet20")


def weights_of(name: str, **config: object) -> Model:
    net = build_resnet(config_named(name).model_copy(update=config))
    return Model(net, ("a", "b"), minus_mean(torch.zeros(3, 1, 1)), {}, [])


@pytest.mark.parametrize("colours", [True, False])
def test_measurements_come_back(tmp_path: Path, colours: bool) -> None:
    prepared = Preprocessing(torch.rand(3, 1, 1), torch.ones(3, 1, 1), resize=256, size=224)
    components = Components(torch.rand(3), torch.rand(3, 3)) if colours else None
    state = InitialState(preprocessing=prepared, components=components, names=("ant", "bee"))
    (tmp_path / FILE).write_bytes(initial_state_bytes(state))
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "00000010.safetensors").touch()
    again = read_initial_state(folder)
    assert again.preprocessing is not None
    assert torch.equal(again.preprocessing.mean, prepared.mean)
    assert again.preprocessing.facts() == prepared.facts()
    assert (again.names, again.begun, again.weights) == (("ant", "bee"), True, None)
    assert (again.components is not None) == colours
    if components and again.components:
        assert all(map(torch.equal, again.components, components))


def test_a_folder_without_measurements_has_none(tmp_path: Path) -> None:
    assert read_initial_state(RunFolder(tmp_path)) == InitialState()


def test_damaged_measurements_are_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=rf"{FILE} is damaged .*; delete it to measure again"):
        read_initial_state(RunFolder(tmp_path))


def test_a_recipe_takes_the_layout_and_the_digest_of_its_weights() -> None:
    weights = weights_of("resnet20", classes=2, zeros="both")
    fitted = fit_to_weights(RECIPE, weights)
    assert (fitted.model.zeros, fitted.model.classes) == ("both", RECIPE.model.classes)
    assert fitted.weights == sha256_of(weights.net.state_dict())
    assert fitted.batch_norm == RECIPE.batch_norm
    assert fit_to_weights(RECIPE, replace(weights, folded=True)).batch_norm == "frozen"
    must_match_weights(fitted, weights)
    with pytest.raises(ValueError, match="name them with `weights`"):
        must_match_weights(fitted, None)
    with pytest.raises(ValueError, match="was made without weights"):
        must_match_weights(RECIPE, weights)
    with pytest.raises(ValueError, match=f"the recipe starts from {fitted.weights}"):
        must_match_weights(fitted, weights_of("resnet20"))


def test_weights_fit_whatever_is_random_in_training() -> None:
    """Random layers have no weights: a recipe keeps its own, whatever the weights had."""
    random = {"norm": NoisyBatchNorm(), "stochastic_depth": 0.5, "dropout": 0.2}
    weights = weights_of("resnet20", **random)
    assert fit_to_weights(RECIPE, weights).model == RECIPE.model
    dropping = RECIPE.with_({"model.dropout": 0.3})
    assert fit_to_weights(dropping, weights).model == dropping.model


def test_weights_with_another_norm_are_refused() -> None:
    reason = "net with 20 layers, option A, group norm, cifar stem, .* one with 20 layers, option A"
    with pytest.raises(ValueError, match=reason):
        fit_to_weights(RECIPE, weights_of("resnet20", norm=GroupNorm()))


@pytest.mark.parametrize("name", ["resnet32", "plain20", "resnet20-B"])
def test_weights_of_another_network_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="digits-resnet20 trains one with 20 layers, option A"):
        fit_to_weights(RECIPE, weights_of(name))


def test_a_flipped_bit_in_the_measurements_is_refused(tmp_path: Path) -> None:
    prepared = Preprocessing(torch.rand(3, 1, 1), torch.ones(3, 1, 1), resize=256, size=224)
    data = initial_state_bytes(InitialState(preprocessing=prepared, names=("ant", "bee")))
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        (tmp_path / FILE).write_bytes(changed)
        with pytest.raises(ValueError, match=f"{FILE} is damaged"):
            read_initial_state(RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("channels", "mean"), [("RBG", 1.0), ("RGB", float("nan")), ("RGB", float("inf"))]
)
def test_measurements_that_cannot_be_used_are_refused(
    tmp_path: Path, channels: str, mean: float
) -> None:
    """As in a file without checksum, where one bit was flipped."""
    tensors = Preprocessing(torch.full((3, 1, 1), mean), torch.ones(3, 1, 1)).tensors()
    facts = {"preprocessing": {"channels": channels, "resize": None, "size": None}, "names": []}
    (tmp_path / FILE).write_bytes(TensorFile(tensors, facts).to_bytes())
    with pytest.raises(ValueError, match=f"{FILE} is damaged"):
        read_initial_state(RunFolder(tmp_path))
