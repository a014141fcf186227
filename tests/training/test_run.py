"""Whole runs: repeatable, resumable at any iteration, recorded correctly."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.waiting import wait_until
from torch import nn

from reslab.api.results import run_result
from reslab.models.model_file import load_model
from reslab.recipes import recipe
from reslab.runtime.cpu import kernel_limit
from reslab.runtime.files import sha256_of
from reslab.training import curves
from reslab.training.checkpoint import checkpoint_name, read_checkpoint
from reslab.training.folder import FolderGone, RunFolder
from reslab.training.log import CheckpointWriter, Diverged
from reslab.training.log import without_details as short_report
from reslab.training.recipe import Recipe
from reslab.training.run import Interrupted
from reslab.training.train import train

SHORT = [
    "iterations=24", "warmup.cap=9", "eval_every=10", "checkpoint_every=6", "recompute_bn=2",
    "batch_size=32", "model.blocks=[1, 1, 1]",
]  # fmt: skip
ADDRESS = ("seconds", "images_per_second")  # keys whose values may differ between equal runs


@pytest.fixture(scope="module")
def short() -> Recipe:
    return recipe("digits-resnet20").with_changes(SHORT)


@pytest.fixture(scope="module")
def whole(short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(short, out)
    return out


@pytest.fixture(scope="module")
def by_torch(short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped, with the engine of observed runs."""
    out = tmp_path_factory.mktemp("torch") / "run"
    train(short.with_(engine="torch"), out)
    return out


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ADDRESS} for row in rows]


def result(run: Path) -> dict[str, Any]:
    found = json.loads((run / "result.json").read_text())
    return {k: v for k, v in found.items() if k not in ADDRESS}


LOOKS = 2  # stop checks per evaluation: one per 256 of 360 images


def after(iterations: int) -> Callable[[], int | None]:
    """Return a stop check that reports SIGTERM during update number `iterations`."""
    return at(iterations + LOOKS * ((iterations - 1) // 10))


def at(number: int) -> Callable[[], int | None]:
    """Return a stop check that reports SIGTERM when it is called for the `number`th time."""
    asked = 0

    def stop() -> int | None:
        nonlocal asked
        asked += 1
        return 15 if asked == number else None

    return stop


def test_the_folder_holds_what_the_contract_names(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {
        "recipe.json", "environment.json", "metrics.jsonl", "result.json", "model.safetensors",
        "curves.svg", "mistakes.json", "checkpoints", ".lock",
    }  # fmt: skip
    assert [p.name[:8] for p in sorted((whole / "checkpoints").iterdir())] == [
        "00000012", "00000018", "00000024",
    ]  # fmt: skip


def test_rows_have_the_keys_of_the_contract(whole: Path) -> None:
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    training = [row for row in rows if row["kind"] == "train"]
    assert [row["iteration"] for row in training] == [10, 20, 24]
    keys = ["kind", "iteration", "learning_rate", "loss", "train_error", "images_per_second"]
    assert all(list(row) == keys for row in training)
    evals = [row for row in rows if row["kind"] == "eval"]
    assert [row["iteration"] for row in evals] == [10, 20, 24]
    keys = {"kind", "iteration", "set", "protocol", "top1_error", "top5_error", "loss", "n"}
    assert all(set(row) >= keys for row in evals)
    assert not any("per_class" in row for row in evals)  # it is in the result
    assert [row["iteration"] for row in rows if row["kind"] == "warmup"] == [9]


def test_the_result_describes_the_model_file(whole: Path) -> None:
    model = load_model(whole)
    found = result(whole)
    assert found["weights_sha256"] == sha256_of(model.net.state_dict())
    assert model.metrics == [short_report(report) for report in found["evaluation"]]
    assert sum(row["n"] for row in found["evaluation"][0]["per_class"]) == 360
    assert found["evaluation"][0]["n"] == 360
    assert model.classes == tuple("0123456789")


def test_the_same_run_twice_is_the_same_to_the_bit(
    short: Recipe, whole: Path, tmp_path: Path
) -> None:
    train(short, tmp_path / "again")
    assert result(tmp_path / "again") == result(whole)
    assert metrics(tmp_path / "again") == metrics(whole)


def test_another_seed_is_another_run(short: Recipe, whole: Path, tmp_path: Path) -> None:
    train(short, tmp_path / "other", seed=2)
    assert result(tmp_path / "other")["weights_sha256"] != result(whole)["weights_sha256"]


@pytest.mark.parametrize("iterations", [1, 4, 9, 17, 23])
def test_a_stopped_run_goes_on_to_the_same_bits_and_lines(
    short: Recipe, whole: Path, tmp_path: Path, iterations: int
) -> None:
    """Stop in the warm-up, at its end, between lines of the log, and inside an epoch."""
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"iteration {iterations}"):
        train(short, out, stop=after(iterations))
    assert not (out / "result.json").exists()
    train(short, out)
    assert result(out) == result(whole)
    assert metrics(out) == metrics(whole)


HAS_BF16 = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))


@pytest.mark.skipif(not HAS_BF16 or kernel_limit() is not None, reason="no bf16 kernels here")
def test_a_stopped_run_in_bf16_goes_on_to_the_same_bits(
    short: Recipe, whole: Path, tmp_path: Path
) -> None:
    short = short.with_changes(["precision=bf16"])
    train(short, tmp_path / "whole")
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match="iteration 14"):
        train(short, out, stop=after(14))
    train(short, out)
    assert result(out) == result(tmp_path / "whole")
    assert metrics(out) == metrics(tmp_path / "whole")
    assert json.loads((out / "environment.json").read_text())["precision"] == "bf16"
    assert result(out)["weights_sha256"] != result(whole)["weights_sha256"]


@pytest.mark.parametrize("number", [11, 12, 24])
def test_a_run_that_is_stopped_in_an_evaluation_goes_on_with_it(
    short: Recipe, whole: Path, tmp_path: Path, number: int
) -> None:
    """Stop at its beginning, at its end, and in the second evaluation; no result is lost."""
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match="iteration 20" if number > 20 else "iteration 10"):
        train(short, out, stop=at(number))
    train(short, out)
    assert result(out) == result(whole)
    assert metrics(out) == metrics(whole)


def test_a_run_killed_without_warning_goes_on_from_its_last_checkpoint(
    short: Recipe, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    class Killed(BaseException):
        pass

    newest = out / "checkpoints" / checkpoint_name(12)

    def kill() -> int | None:
        wait_until(newest.exists)
        raise Killed

    with pytest.raises(Interrupted):
        train(short, out, stop=after(8))
    calls = iter(range(100))
    with pytest.raises(Killed):  # a few updates after the checkpoint of iteration 12
        train(short, out, stop=lambda: None if next(calls) < 6 + LOOKS else kill())
    newest.write_bytes(newest.read_bytes()[:-100])
    reported: list[dict[str, Any]] = []
    train(short, out, on_event=reported.append)
    notes = [row["text"] for row in reported if row["kind"] == "note"]
    assert "damaged" in notes[0]
    assert result(out) == result(whole)
    assert metrics(out) == metrics(whole)


def test_a_run_stopped_in_its_last_phase_goes_on(
    short: Recipe, whole: Path, tmp_path: Path
) -> None:
    """Stop while statistics are recomputed, or before the result is written."""
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(short, out, stop=after(25))
    assert not (out / "result.json").exists()
    train(short, out)
    (out / "result.json").unlink()
    train(short, out)
    assert result(out) == result(whole)
    assert metrics(out) == metrics(whole)


def test_a_resumed_run_keeps_its_number_of_threads(short: Recipe, tmp_path: Path) -> None:
    """Sums depend on it, and so do the bits of the weights."""
    short = short.with_changes(["iterations=4", "eval_every=4", "warmup=null"])
    out = tmp_path / "run"
    before = torch.get_num_threads()
    reported: list[dict[str, Any]] = []
    try:
        torch.set_num_threads(2)
        with pytest.raises(Interrupted):
            train(short, out, stop=after(2))
        torch.set_num_threads(1)
        train(short, out, on_event=reported.append)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert not any("not bit-exact" in row.get("text", "") for row in reported)


def test_a_finished_run_is_not_run_again(short: Recipe, whole: Path) -> None:
    before = (whole / "model.safetensors").stat().st_mtime_ns
    reported: list[dict[str, Any]] = []
    train(short, whole, on_event=reported.append)
    assert (whole / "model.safetensors").stat().st_mtime_ns == before
    assert reported == [{"kind": "note", "text": "this run is finished"}]


def test_a_loss_that_is_not_finite_is_named_and_nothing_bad_is_saved(tmp_path: Path) -> None:
    wild = recipe("digits-resnet20").with_changes(
        [*SHORT, "warmup=null", "learning_rate=1e30", "checkpoint_every=1", "eval_every=100"]
    )
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at iteration [23]\b"):
        train(wild, tmp_path / "run")
    with pytest.raises(Diverged, match=r"learning rate is 1e\+30; train again .* lower"):
        train(wild, tmp_path / "run")
    saved = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert next(path.name[:8] for path in saved) == "00000001"
    assert not (tmp_path / "run" / "result.json").exists()


def test_data_that_is_missing_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no CIFAR-10 in"):
        train(recipe("cifar10-resnet20"), tmp_path / "run", data=tmp_path)
    assert not (tmp_path / "run").exists()


def test_held_out_images_are_watched_and_the_test_is_opened_once(tmp_path: Path) -> None:
    it = recipe("digits-resnet20").with_changes([*SHORT, "held_out=100"])
    train(it, tmp_path / "run")
    evals = [row for row in metrics(tmp_path / "run") if row["kind"] == "eval"]
    assert [(row["iteration"], row["set"], row["n"]) for row in evals] == [
        (10, "held_out", 100), (20, "held_out", 100), (24, "held_out", 100), (24, "test", 360),
    ]  # fmt: skip


def test_recomputed_statistics_replace_the_moving_averages(short: Recipe, tmp_path: Path) -> None:
    moving = short.with_changes(["recompute_bn=0"])
    train(moving, tmp_path / "moving")
    train(short, tmp_path / "recomputed")
    one = load_model(tmp_path / "moving").net.state_dict()
    other = load_model(tmp_path / "recomputed").net.state_dict()
    for name, tensor in one.items():
        statistics = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(tensor, other[name]) != statistics, name


def test_an_observer_sees_every_update_once_and_changes_nothing(
    short: Recipe, by_torch: Path, tmp_path: Path
) -> None:
    """It is not recorded, so a run may be resumed with another observer, or none."""
    out, seen = tmp_path / "run", []

    def observe(iteration: int, net: nn.Module) -> None:
        assert all(weight.grad is not None for weight in net.parameters())
        seen.append(iteration)

    with pytest.raises(Interrupted, match="iteration 9"):
        train(short, out, stop=after(9), observer=observe)
    assert seen == list(range(1, 10))
    train(short, out, observer=observe)
    assert seen == list(range(1, 25))
    assert result(out) == result(by_torch)
    assert metrics(out) == metrics(by_torch)


def test_checkpoints_at_multiples_of_keep_every_stay(
    short: Recipe, whole: Path, tmp_path: Path
) -> None:
    """They stay besides the newest three, whether or not `checkpoint_every` divides them."""
    kept = short.with_({"keep_every": 4}, checkpoint_every=6)
    with pytest.raises(Interrupted, match="iteration 9"):
        train(kept, tmp_path / "run", stop=after(9))
    train(kept, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    saved = [int(path.stem) for path in sorted(checkpoints.iterdir())]
    assert saved == [4, 8, 12, 16, 18, 20, 24]
    assert result(tmp_path / "run") == result(whole)
    name = "00000012.safetensors"
    one, other = read_checkpoint(checkpoints / name), read_checkpoint(whole / "checkpoints" / name)
    assert sha256_of(one.weights) == sha256_of(other.weights)


def test_a_kept_checkpoint_waits_for_a_slow_disk(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other checkpoints are skipped if the disk is slow, and a line reports it."""
    patient, save = CheckpointWriter.__init__, RunFolder.save

    def impatient(self: CheckpointWriter, *arguments: Any) -> None:
        patient(self, *arguments, patience=0.0)

    def slow(self: RunFolder, *arguments: Any) -> None:
        time.sleep(0.5)
        save(self, *arguments)

    monkeypatch.setattr(CheckpointWriter, "__init__", impatient)
    monkeypatch.setattr(RunFolder, "save", slow)
    notes: list[dict[str, Any]] = []
    kept = short.with_(keep_every=5, checkpoint_every=1, iterations=12)
    train(kept, tmp_path / "run", on_event=notes.append)
    saved = {int(path.stem) for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert saved >= {5, 10, 12}
    assert any("the disk is still writing" in note.get("text", "") for note in notes)


def test_a_figure_that_cannot_be_drawn_costs_no_result(
    short: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is there before the figure, which a later call draws."""

    def fail(*arguments: object) -> str:
        assert (tmp_path / "run/result.json").exists()
        raise RuntimeError("no fonts")

    notes: list[dict[str, Any]] = []
    with monkeypatch.context() as broken:
        broken.setattr(curves, "draw_curves", fail)
        train(short, tmp_path / "run", on_event=notes.append)
    assert notes[-1]["text"] == f"{tmp_path}/run/curves.svg is missing: no fonts"
    assert result(tmp_path / "run") == result(whole)
    assert not (tmp_path / "run/curves.svg").exists()
    train(short, tmp_path / "run")
    assert (tmp_path / "run/curves.svg").exists()


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_a_run_whose_folder_is_gone_ends_at_once(
    short: Recipe, by_torch: Path, tmp_path: Path, how: str
) -> None:
    out, notes, last = tmp_path / "run", [], 0

    def observe(iteration: int, net: nn.Module) -> None:
        nonlocal last
        last = iteration
        if iteration == 15:
            out.rename(tmp_path / "moved") if how == "moved" else shutil.rmtree(out)

    with pytest.raises(FolderGone, match="run is no longer the folder of this run"):
        train(short, out, observer=observe, on_event=notes.append)
    assert last < 24
    assert not any("is kept" in note.get("text", "") for note in notes)
    assert not out.exists()
    if how == "moved":
        train(short, tmp_path / "moved")
        assert result(tmp_path / "moved") == result(by_torch)


def test_damaged_checkpoints_alone_start_the_run_again(
    short: Recipe, whole: Path, tmp_path: Path
) -> None:
    """From its initial weights, which are needed only if no checkpoint is intact."""
    tuned = short.with_(iterations=8, checkpoint_every=4)
    expected = train(tuned, tmp_path / "whole", weights=whole)
    with pytest.raises(Interrupted):
        train(tuned, tmp_path / "run", weights=whole, stop=after(6))
    for file in (tmp_path / "run/checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    found = train(tuned, tmp_path / "run", weights=whole)
    assert found["state_sha256"] == expected["state_sha256"]


def test_a_final_loss_that_is_not_finite_ends_a_complete_run_as_diverged(tmp_path: Path) -> None:
    """The last update, and recomputed statistics, can spoil weights after the last finite loss."""
    wild = recipe("digits-resnet20").with_changes(
        [*SHORT, "warmup=null", "learning_rate=1e30", "iterations=1", "eval_every=100"]
    )
    out = tmp_path / "run"
    for _ in range(2):  # a second call finds the finished run
        with pytest.raises(Diverged, match=r"run: the loss on test is .* the learning rate 1e\+30"):
            train(wild, out)
    for name in ("result.json", "mistakes.json"):
        json.loads((out / name).read_bytes(), parse_constant=pytest.fail)
    for line in (out / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    assert json.loads((out / "result.json").read_bytes())["evaluation"][-1]["loss"] is None
    assert run_result(out, json.loads((out / "result.json").read_bytes())).reports[-1].n == 360
    with pytest.raises(RuntimeError, match=r"model\.safetensors: .* is infinite or NaN"):
        load_model(out)
