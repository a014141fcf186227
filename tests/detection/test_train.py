"""Whole detector runs: reproducible, resumable anywhere, in joint or alternating training."""

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.detection.small import (
    SCENES,
    SHORT,
    SMALL,
    classifier,
    classifier_file,
    own_recipe,
    scenes_folder,
    short_recipe,
)

from reslab.detection import setup as prepare
from reslab.detection.alternating import train_detector
from reslab.detection.predict import load_detector
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import load_weights
from reslab.models.batchnorm import recompute_statistics
from reslab.models.config import config_named
from reslab.recipes import any_recipe
from reslab.recipes.tasks import recipe_in
from reslab.runtime.files import sha256_of
from reslab.training.folder import RunFolder
from reslab.training.run import Interrupted

FOURFOLD = ("training=alternating", "fixed_stages=1", "iterations=4", "eval_every=2")


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "digit_scenes", lambda: SCENES)
    monkeypatch.setattr(prepare, "CALIBRATION_BATCHES", 2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_file(tmp_path_factory.mktemp("weights"))


def digests(run: Path) -> tuple[str, str]:
    result = json.loads((run / "result.json").read_bytes())
    return result["weights_sha256"], result["state_sha256"]


def looks(run: Path) -> list[tuple[int, int]]:
    """Return the iterations and numbers of images of the evaluations in the log."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["iteration"], row["n"]) for row in rows if row["kind"] == "eval"]


def after(times: int) -> Callable[[], int | None]:
    """Return a stop function that reports SIGTERM when it is called for the `times`-th time.

    A run calls it after each update and for each image evaluated.
    """
    asked = 0

    def stop() -> int | None:
        nonlocal asked
        asked += 1
        return 15 if asked == times else None

    return stop


def resume(out: Path, **more: Any) -> dict[str, Any]:
    """Resume a run as `reslab resume` does."""
    folder = RunFolder.open(out)
    recipe, environment = recipe_in(folder), folder.environment()
    assert isinstance(recipe, DetectionRecipe)
    return train_detector(recipe, out, seed=environment["seed"], data=environment["data"], **more)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """Train a run without stops."""
    out = tmp_path_factory.mktemp("joint") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "digit_scenes", lambda: SCENES)
        train_detector(short_recipe(), out, weights=weights)
    return out


@pytest.fixture(scope="module")
def fourfold(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """Train the four steps without stops."""
    out = tmp_path_factory.mktemp("fourfold") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "digit_scenes", lambda: SCENES)
        train_detector(short_recipe(*FOURFOLD), out, weights=weights)
    return out


def test_a_run_folder_has_the_files_of_a_classifiers(joint: Path) -> None:
    names = {path.name for path in joint.iterdir()}
    assert names == {
        "recipe.json", "environment.json", "metrics.jsonl", "result.json", "model.safetensors",
        "curves.svg", "detections.json", "preprocessing.safetensors", "checkpoints", ".lock",
    }  # fmt: skip
    rows = [json.loads(line) for line in (joint / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert looks(joint) == [(4, 2), (6, 3)]
    evaluated = [row for row in rows if row["kind"] == "eval"]
    model = load_detector(joint)
    assert sha256_of(model.net.state_dict()) == digests(joint)[0]
    assert model.classes == SCENES.test.classes
    result = json.loads((joint / "result.json").read_bytes())
    (report,) = result["evaluation"]
    assert report["map_50"] == evaluated[1]["map_50"]
    assert len(report["per_class"]) == 10
    assert isinstance(json.loads((joint / "detections.json").read_bytes()), list)


@pytest.mark.parametrize(("updates", "times"), [(1, 1), (4, 4), (4, 6), (6, 8)])
def test_a_stopped_and_resumed_run_equals_an_unstopped_one(
    joint: Path, weights: Path, tmp_path: Path, updates: int, times: int
) -> None:
    """At a checkpoint, between two, at an evaluation's second image, at the last update."""
    out = tmp_path / "run"
    with pytest.raises(Interrupted) as stopped:
        train_detector(short_recipe(), out, weights=weights, stop=after(times))
    assert stopped.value.iteration == updates
    assert not (out / "result.json").exists()
    resume(out)
    assert digests(out) == digests(joint)
    assert looks(out) == looks(joint)
    assert (out / "detections.json").read_bytes() == (joint / "detections.json").read_bytes()
    assert load_detector(out).metrics == load_detector(joint).metrics


def test_the_same_command_resumes_and_leaves_a_finished_run_alone(
    joint: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_detector(short_recipe(), out, weights=weights, stop=after(3))
    train_detector(short_recipe(), out, weights=weights)
    assert digests(out) == digests(joint)
    reported: list[Any] = []
    train_detector(short_recipe(), out, weights=weights, on_event=reported.append)
    assert [row["text"] for row in reported] == ["this run is finished"]


def test_a_run_without_a_checkpoint_finds_its_weights(
    joint: Path, weights: Path, tmp_path: Path
) -> None:
    """The run was killed before its first checkpoint."""
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_detector(short_recipe(), out, weights=weights, stop=after(1))
    for checkpoint in (out / "checkpoints").iterdir():
        checkpoint.unlink()
    resume(out)
    assert digests(out) == digests(joint)


@pytest.mark.parametrize(
    "changes", [["model.norm=recompute"], ["model.norm=group"], ["virtual_gpus=2"]]
)
def test_other_settings_resume_as_well(weights: Path, tmp_path: Path, changes: list[str]) -> None:
    recipe = short_recipe("iterations=4", *changes)
    start = None if "model.norm=group" in changes else weights
    train_detector(recipe, tmp_path / "whole", weights=start)
    with pytest.raises(Interrupted):
        train_detector(recipe, tmp_path / "run", weights=start, stop=after(3))
    resume(tmp_path / "run")
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")


def state_of(run: Path) -> dict[str, torch.Tensor]:
    return load_detector(run).net.state_dict()


def alike(one: Path, other: Path, *parts: str) -> bool:
    first, second = state_of(one), state_of(other)
    names = [name for name in first if name.startswith(parts)]
    assert names
    return all(torch.equal(first[name], second[name]) for name in names)


TRUNK = ("stem.", "stages.0.", "stages.1.")
REGIONS = ("stages.2.", "classifier.", "regressor.")


def test_four_steps_share_what_the_paper_shares(fourfold: Path) -> None:
    """Proposals and regions first have separate trunks, then share the second one."""
    one, two, three = (fourfold / f"step{step}" for step in (1, 2, 3))
    assert not alike(one, two, "stages.1.")
    assert alike(one, two, "stem.", "stages.0.")  # fixed_stages=1
    assert alike(two, three, *TRUNK)
    assert alike(two, three, *REGIONS)
    assert not alike(one, three, "proposals.")
    assert alike(three, fourfold, *TRUNK)
    assert alike(three, fourfold, "proposals.")
    assert not alike(three, fourfold, *REGIONS)
    for step, reports in ((one, 0), (two, 1), (three, 0), (fourfold, 1)):
        assert len(json.loads((step / "result.json").read_bytes())["evaluation"]) == reports
    recipe = recipe_in(RunFolder.open(two))
    assert isinstance(recipe, DetectionRecipe)
    assert (recipe.step, recipe.name) == (2, "digit-scenes-small-c4-step2")


@pytest.mark.parametrize("times", [3, 4, 9, 12, 22])
def test_four_steps_resume_wherever_they_stopped(
    fourfold: Path, weights: Path, tmp_path: Path, times: int
) -> None:
    """Stop steps of 4 updates inside every step, between two, and in the second's evaluation.

    Resuming needs only the path of the weights, which the folder records.
    """
    out = tmp_path / "run"
    with pytest.raises(Interrupted) as stopped:
        train_detector(short_recipe(*FOURFOLD), out, weights=weights, stop=after(times))
    assert f"reslab resume {out}" in str(stopped.value)
    resume(out)
    assert digests(out) == digests(fourfold)
    for step in ("step1", "step2", "step3"):
        assert digests(out / step) == digests(fourfold / step)


def test_a_step_can_be_resumed_by_itself(fourfold: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_detector(short_recipe(*FOURFOLD), out, weights=weights, stop=after(9))
    resume(out / "step2")
    assert digests(out / "step2") == digests(fourfold / "step2")
    assert not (out / "step3").exists()
    resume(out)
    assert digests(out) == digests(fourfold)


def test_finished_steps_may_be_deleted(fourfold: Path, weights: Path, tmp_path: Path) -> None:
    shutil.copytree(fourfold, tmp_path / "run")
    for step in (1, 2, 3):
        shutil.rmtree(tmp_path / "run" / f"step{step}")
    reported: list[Any] = []
    resume(tmp_path / "run", on_event=reported.append)
    assert [row["text"] for row in reported] == ["this run is finished"]
    assert not (tmp_path / "run" / "step1").exists()


def test_a_detector_is_trained_further(joint: Path, tmp_path: Path) -> None:
    """With a tiny learning rate it stays as it was."""
    recipe = short_recipe("iterations=1", "learning_rate=1e-30", "weight_decay=0.0")
    train_detector(recipe, tmp_path / "run", weights=joint)
    assert digests(tmp_path / "run")[0] == digests(joint)[0]


def test_training_lowers_the_loss(weights: Path, tmp_path: Path) -> None:
    recipe = short_recipe("iterations=30", "learning_rate=0.02", "eval_every=100", "drops=[]")
    train_detector(recipe, tmp_path / "run", weights=weights)
    rows = RunFolder.open(tmp_path / "run").rows()
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.parametrize("training", ["joint", "alternating"])
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ((), "starts from trained weights"),
        (("model.norm=recompute",), "starts from trained weights"),
        (("data=boxes",), "starts from trained weights|with `data`"),
    ],
)
def test_missing_inputs_are_reported_before_a_folder_is_created(
    tmp_path: Path, training: str, changes: tuple[str, ...], why: str
) -> None:
    recipe = short_recipe(f"training={training}", *changes)
    with pytest.raises(ValueError, match=why) as caught:
        train_detector(recipe, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("training", ["joint", "alternating"])
def test_mismatched_inputs_are_reported_before_a_folder_is_created(
    tmp_path: Path, weights: Path, training: str
) -> None:
    folder = scenes_folder(tmp_path / "scenes")
    recipe = own_recipe(f"training={training}", "model.classes=9")
    with pytest.raises(ValueError, match=r"model\.classes=10"):
        train_detector(recipe, tmp_path / "run", weights=weights, data=folder)
    other = classifier_file(folder, classifier(SMALL.model_copy(update={"widths": (4, 8, 9)})))
    recipe = own_recipe(f"training={training}")
    with pytest.raises(ValueError, match="the weights belong to a net"):
        train_detector(recipe, tmp_path / "run", weights=other, data=folder)
    folded = classifier_file(folder, classifier(folded=True))
    for norm in ("recompute", "group"):
        recipe = own_recipe(f"training={training}", f"model.norm={norm}")
        with pytest.raises(ValueError, match="batch norm was folded"):
            train_detector(recipe, tmp_path / "run", weights=folded, data=folder)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_recipe_is_refused(joint: Path, weights: Path) -> None:
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        train_detector(short_recipe("model.width=16"), joint, weights=weights)
    with pytest.raises(ValueError, match="seed: 1 -> 2"):
        train_detector(short_recipe(), joint, weights=weights, seed=2)


def test_a_few_bad_images_are_skipped(weights: Path, tmp_path: Path) -> None:
    folder = scenes_folder(tmp_path / "scenes")
    shutil.copy(folder / "train" / "000001.png", folder / "train" / "more.png")
    (folder / "train" / "000002.png").write_bytes(b"no image")
    reported: list[Any] = []
    recipe = own_recipe("bad_limit=0.2", "iterations=4")
    train_detector(recipe, tmp_path / "run", weights=weights, data=folder, on_event=reported.append)
    notes = [row["text"] for row in reported if row["kind"] == "note"]
    assert any(text.startswith("skipped 000002.png") for text in notes)
    assert notes.count("train/: not listed, and not used: 1 image") == 1
    (folder / "train" / "000003.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="2 of 6 images cannot be used"):
        train_detector(recipe, tmp_path / "more", weights=weights, data=folder)


# real processes that are really killed

KILLS = 20
LONG = [*SHORT, "checkpoint_every=3", "eval_every=15", "data=boxes"]


def command(out: Path, weights: Path, data: Path, changes: list[str]) -> list[str]:
    return [
        "train", "digit-scenes-resnet20-c4", "--out", str(out),
        "--weights", str(weights), "--data", str(data), *(f"--set={change}" for change in changes),
    ]  # fmt: skip


def lines(out: Path) -> int:
    """Count the lines in all logs of a run, including its steps."""
    return sum(len(log.read_bytes().splitlines()) for log in out.rglob("metrics.jsonl"))


def killed_once(start: Callable[..., Any], arguments: list[str], out: Path, more: int) -> bool:
    """Kill the command once the logs have `more` lines more; return whether it was running."""
    before, process = lines(out), start(*arguments)
    while lines(out) < before + more and process.runs():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    return process.end().returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write a classifier file that fits the recipe's trunk, and a folder of scenes."""
    home = tmp_path_factory.mktemp("large")
    model = classifier(config_named("resnet20"))
    noise = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 60
    recompute_statistics(model.net, (model.net(noise) for _ in range(2)))
    return classifier_file(home, model), scenes_folder(home / "it")


def must_survive(
    large: tuple[Path, Path], tmp_path: Path, start: Callable[..., Any], kills: int,
    iterations: int, training: str,
) -> None:  # fmt: skip
    """Check that a run killed several times, each time later, ends with the same bits."""
    weights, data = large
    changes = [*LONG, f"iterations={iterations}", f"training={training}"]
    recipe = any_recipe("digit-scenes-resnet20-c4", weights=load_weights(weights))
    assert isinstance(recipe, DetectionRecipe)
    train_detector(recipe.with_changes(changes), tmp_path / "whole", weights=weights, data=data)
    moments, out = random.Random(0), tmp_path / "run"
    shown = iterations * (4 if training == "alternating" else 1)
    command_ = command(out, weights, data, changes)
    killed = 0
    for _ in range(kills):
        killed += killed_once(start, command_, out, moments.randint(1, max(shown // kills, 4)))
    assert killed >= kills * 0.7
    started = (out / "recipe.json").exists()
    done = (start("resume", out) if started else start(*command_)).end()
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(tmp_path / "whole")


def test_a_killed_and_resumed_run_equals_an_unkilled_one(
    large: tuple[Path, Path], tmp_path: Path, start: Callable[..., Any]
) -> None:
    must_survive(large, tmp_path, start, 1, 8, "joint")


@pytest.mark.slow
@pytest.mark.parametrize("training", ["joint", "alternating"])
def test_twenty_kills(
    large: tuple[Path, Path], tmp_path: Path, start: Callable[..., Any], training: str
) -> None:
    must_survive(large, tmp_path, start, KILLS, 40, training)
