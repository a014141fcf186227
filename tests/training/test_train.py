"""Runs on photographs: from random or given weights, resumed, with unbalanced classes."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.walls import TINY, draw

from reslab.data.folder import open_folder, read_folder
from reslab.detection import setup as detection_setup
from reslab.models.config import config_named
from reslab.models.model_file import Model, load_model, model_bytes
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import build_resnet
from reslab.recipes import open_recipe, recipe
from reslab.recipes import own as own_recipes
from reslab.recipes.own import own_recipe
from reslab.recipes.tasks import task_kind
from reslab.runtime.device import setup_device
from reslab.runtime.files import sha256_of
from reslab.training import setup as training_setup
from reslab.training import train as training_train
from reslab.training.classification import ClassificationTask
from reslab.training.origin import must_match_weights
from reslab.training.recipe import Recipe
from reslab.training.run import Interrupted
from reslab.training.setup import inputs_at
from reslab.training.train import Job, begin_classification, train
from reslab.training.weights import load_classifier


def own(walls: Path, *changes: str) -> Recipe:
    return recipe("own-resnet18", data=walls).with_changes([*TINY, *changes])


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of brick and five of sky."""
    return draw(tmp_path_factory.mktemp("images") / "walls", {"brick": 10, "sky": 5})


@pytest.fixture(scope="module")
def whole(walls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(own(walls), out, data=walls)
    return out


def result(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())


def test_data_and_weights_are_read_once(
    walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe and the run share them."""
    calls: list[str] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(function.__name__)
            return function(*arguments)

        return call

    folder, model = counted(read_folder), counted(load_classifier)
    for module in (own_recipes, training_setup):
        monkeypatch.setattr(module, "read_folder", folder)
    for module in (detection_setup, training_train):
        monkeypatch.setattr(module, "load_classifier", model)
    inputs = inputs_at(walls)
    own = open_recipe("own-resnet18", inputs, [*TINY, "iterations=1"])
    task_kind(own).train(own, tmp_path / "own", data=inputs)
    assert calls == ["read_folder"]
    net = build_resnet(config_named("resnet20"))
    digits = Model(net, tuple("0123456789"), minus_mean(torch.zeros(3, 1, 1)), {}, [])
    (tmp_path / "start.safetensors").write_bytes(model_bytes(digits))
    inputs = inputs_at(None, tmp_path / "start.safetensors")
    short = ["iterations=1", "batch_size=4", "recompute_bn=0"]
    tuned = open_recipe("digits-resnet20", inputs, short)
    task_kind(tuned).train(tuned, tmp_path / "digits", data=inputs)
    assert calls == ["read_folder", "load_classifier"]


def begin(recipe: Recipe, data: Path, weights: Path | None = None) -> ClassificationTask:
    """Set up the task of a new run."""
    return begin_classification(
        Job(recipe, data / "run", inputs_at(data, weights), setup_device("fp32"), seed=1)
    )


def stopping_after(updates: int):
    count = iter(range(1, 100))
    return lambda: 15 if next(count) == updates else None


@pytest.mark.parametrize("updates", [1, 5])
def test_a_run_stopped_inside_an_epoch_goes_on_to_the_same_bits(
    whole: Path, walls: Path, tmp_path: Path, updates: int
) -> None:
    """Threads prefetch images, but no prefetching is part of the state."""
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(own(walls), out, data=walls, stop=stopping_after(updates))
    train(own(walls), out, data=walls)
    assert result(out)["state_sha256"] == result(whole)["state_sha256"]
    assert result(out)["evaluation"] == result(whole)["evaluation"]


def test_a_random_net_on_photographs_goes_on_to_the_same_bits(walls: Path, tmp_path: Path) -> None:
    random = ["model.stochastic_depth=0.5", "model.dropout=0.2", "model.norm=noisy-batch"]
    runs = tmp_path / "whole", tmp_path / "stopped"
    train(own(walls, *random), runs[0], data=walls)
    with pytest.raises(Interrupted):
        train(own(walls, *random), runs[1], data=walls, stop=stopping_after(3))
    train(own(walls, *random), runs[1], data=walls)
    assert result(runs[1])["state_sha256"] == result(runs[0])["state_sha256"]


def test_the_model_file_knows_classes_and_preprocessing(whole: Path) -> None:
    model = load_model(whole)
    assert (model.classes, model.ids) == (("brick", "sky"), ("brick", "sky"))
    assert (model.preprocessing.resize, model.preprocessing.size) == (144, 128)
    assert model.preprocessing.mean.shape == (3, 1, 1)
    red, green, blue = model.preprocessing.mean.flatten().tolist()
    assert red == pytest.approx((2 * 180 + 60) / 3, abs=10)  # ten of brick, five of sky
    assert green == pytest.approx(90, abs=10)
    assert blue == pytest.approx((2 * 60 + 180) / 3, abs=10)


def test_the_mean_image_has_the_size_of_the_crop(walls: Path, tmp_path: Path) -> None:
    train(own(walls, "pictures.mean=pixel", "iterations=1"), tmp_path / "run", data=walls)
    assert load_model(tmp_path / "run").preprocessing.mean.shape == (3, 128, 128)


def test_each_class_has_its_error(whole: Path) -> None:
    report = result(whole)["evaluation"][0]
    assert [(row["class"], row["n"]) for row in report["per_class"]] == [("brick", 2), ("sky", 1)]
    assert report["set"] == "validation"
    assert report["protocol"] == "one-crop 144-128"


def test_statistics_are_measured_once(whole: Path, walls: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(own(walls), out, data=walls, stop=stopping_after(2))
    notes = []
    train(own(walls), out, data=walls, on_event=lambda row: notes.append(row.get("text", "")))
    assert not any("measuring" in text for text in notes)


def fine(walls: Path, start: Model, *changes: str) -> Recipe:
    tuned = own_recipe("tiny", start.config, open_folder(walls).train, start)
    return tuned.with_changes([*TINY[1:], *changes])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("three"), {"brick": 4, "sky": 4, "water": 4})


def test_fine_tuning_replaces_the_classifier_and_keeps_statistics(
    whole: Path, three: Path, tmp_path: Path
) -> None:
    start = load_model(whole)
    tuned = fine(three, start)
    assert (tuned.batch_norm, tuned.model.classes) == ("frozen", 3)
    train(tuned, tmp_path / "run", data=three, weights=whole)
    end = load_model(tmp_path / "run")
    assert end.classes == ("brick", "sky", "water")
    assert torch.equal(end.preprocessing.mean, start.preprocessing.mean)
    before, after = start.net.state_dict(), end.net.state_dict()
    norms = [name for name in before if ".norm." in name]
    assert norms
    assert all(torch.equal(before[name], after[name]) for name in norms)
    assert not torch.equal(before["stem.0.conv.weight"], after["stem.0.conv.weight"])


def test_recalibrated_statistics_are_those_of_the_new_images(
    whole: Path, three: Path, tmp_path: Path
) -> None:
    start = load_model(whole)
    tuned = fine(three, start, "batch_norm=recalibrate", "iterations=1")
    train(tuned, tmp_path / "run", data=three, weights=whole)
    before, after = start.net.state_dict(), load_model(tmp_path / "run").net.state_dict()
    name = "stem.0.norm.running_mean"
    assert not torch.equal(before[name], after[name])
    assert torch.equal(before["stem.0.norm.weight"], after["stem.0.norm.weight"])


def test_fine_tuning_resumes_without_the_weights_it_began_from(
    whole: Path, three: Path, tmp_path: Path
) -> None:
    tuned = fine(three, load_model(whole))
    train(tuned, tmp_path / "straight", data=three, weights=whole)
    moved = tmp_path / "start.safetensors"
    shutil.copy(whole / "model.safetensors", moved)
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(tuned, out, data=three, weights=moved, stop=stopping_after(3))
    moved.unlink()
    train(tuned, out, data=three)
    assert result(out)["state_sha256"] == result(tmp_path / "straight")["state_sha256"]


def test_a_new_classifier_has_no_opinion(whole: Path, three: Path) -> None:
    start = load_model(whole)
    with closing(begin(fine(three, start), three, whole)) as it:
        assert not it.model([]).resnet.fc.weight.any()
        first = "stem.0.conv.weight"
        assert torch.equal(it.net.state_dict()[first], start.net.state_dict()[first])


def test_ids_that_the_weights_know_get_their_names(
    whole: Path, three: Path, tmp_path: Path
) -> None:
    """Also when the run is resumed without the weights; other ids stay unchanged."""
    shutil.copytree(whole, tmp_path / "start")
    ids, names = ("sky", "brick", "water", "wood"), ("blue", "red", "wet", "brown")
    config = load_model(whole).config.model_copy(update={"classes": 4})
    start = replace(load_model(whole), net=build_resnet(config).eval(), classes=names, ids=ids)
    (tmp_path / "start" / "model.safetensors").write_bytes(model_bytes(start))
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(
            fine(three, start), out, data=three, weights=tmp_path / "start", stop=stopping_after(2)
        )
    train(fine(three, start), out, data=three)
    assert (load_model(out).classes, load_model(out).ids) == (
        ("red", "blue", "wet"),
        ("brick", "sky", "water"),
    )
    rows = result(out)["evaluation"][0]["per_class"]
    assert [row["class"] for row in rows] == ["red", "blue", "wet"]


def test_the_same_classes_keep_their_classifier(whole: Path, walls: Path, tmp_path: Path) -> None:
    start = load_model(whole)
    tuned = fine(walls, start, "learning_rate=1e-30", "iterations=1")
    train(tuned, tmp_path / "run", data=walls, weights=whole)
    end = load_model(tmp_path / "run").net.state_dict()
    assert sha256_of(end) == sha256_of(start.net.state_dict())


def test_other_weights_are_refused(whole: Path, walls: Path, tmp_path: Path) -> None:
    start = load_model(whole)
    with pytest.raises(ValueError, match="20 layers, option A, cifar stem"):
        recipe("digits-resnet20", weights=whole)
    tuned = fine(walls, start)
    with pytest.raises(ValueError, match="name them with `weights`"):
        train(tuned, tmp_path / "run", data=walls)
    with pytest.raises(ValueError, match="batch_norm=frozen"):
        must_match_weights(fine(walls, start, "batch_norm=train"), replace(start, folded=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("balance", ["sampler", "loss"])
def test_unequal_classes_can_be_balanced(walls: Path, tmp_path: Path, balance: str) -> None:
    with closing(begin(own(walls, f"balance={balance}"), walls)) as it:
        if balance == "loss":
            assert it.class_weights is not None
            # eight training images of brick and four of sky: 12 / (2 * 8) and 12 / (2 * 4)
            assert it.class_weights.tolist() == [0.75, 1.5]
        else:
            labels = torch.cat([it.loader(k).labels for k in range(4)])
            assert labels.bincount().tolist() == [8, 8]


def test_a_bad_image_to_validate_on_is_named_once(tmp_path: Path) -> None:
    data = draw(tmp_path / "set/train", {"brick": 4, "sky": 4}).parent
    draw(data / "val", {"brick": 2, "sky": 2})
    (data / "val" / "sky" / "001.jpg").write_bytes(b"no image")
    notes: list[str] = []
    recipe = own(data, "iterations=2", "eval_every=1")
    train(
        recipe, tmp_path / "run", data=data, on_event=lambda row: notes.append(row.get("text", ""))
    )
    named = [text for text in notes if "sky/001.jpg: " in text]
    assert len(named) == 1, notes
    assert result(tmp_path / "run")["evaluation"][0]["skipped"] == 1


def test_a_bad_image_is_named_and_too_many_end_the_run(tmp_path: Path) -> None:
    data = draw(tmp_path / "set", {"brick": 10, "sky": 10})
    (data / "sky" / "000.jpg").write_bytes(b"no image")
    notes: list[str] = []
    one = own(data, "pictures.bad_limit=0.1")
    train(one, tmp_path / "one", data=data, on_event=lambda row: notes.append(row.get("text", "")))
    assert any("sky/000.jpg" in text for text in notes)
    with pytest.raises(ValueError, match="reslab check"):
        train(own(data, "pictures.bad_limit=0"), tmp_path / "none", data=data)
