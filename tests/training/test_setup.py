"""What all tasks share in a run, tested with a task of one weight and a detector's reports."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.finder import FinderRecipe
from torch import Tensor, nn

from reslab.data.loader import Draws
from reslab.runtime.device import setup_device
from reslab.training.folder import RunFolder
from reslab.training.optimizer import build_sgd
from reslab.training.recipe import RunRecipe
from reslab.training.run import Interrupted
from reslab.training.setup import Inputs
from reslab.training.task import CheckStop, Final, Task
from reslab.training.train import Job, train_in_folder

RECIPE = FinderRecipe(
    name="finder", iterations=8, batch_size=2, eval_every=2, checkpoint_every=2, log_every=1,
    drops=(), precision="fp32",
).with_changes(["plateau.patience=1"])  # fmt: skip
REPORT = {"set": "test", "protocol": "COCO, pycocotools", "n": 3, "map_50": 81.2, "map_50_95": None}
TWELVE = {"ap": 45.0, "ap_50": 81.2}


class Finder:
    """A task that learns a single weight and counts how often it is closed."""

    epoch = 2

    def __init__(
        self, reports: list[dict[str, Any]], files: dict[str, bytes] | None = None
    ) -> None:
        self.recipe: RunRecipe = RECIPE
        self.reports, self.files, self.closed = reports, files or {}, 0
        self.device = setup_device("fp32")
        self.net = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.net.weight)
        self.optimizer = build_sgd(self.net, momentum=0.9, weight_decay=0.0)

    def draws(self, iteration: int) -> Draws:
        return Draws(iteration, torch.tensor([iteration, 0]), ())

    def prepare(self, draws: Draws) -> list[Tensor]:
        return [torch.full((1, 1), float(draws.iteration)), torch.ones(1, 1)]

    def loss(self, share: Tensor) -> tuple[Tensor, Tensor]:
        return (self.net(share) - 3).square().mean(), torch.tensor(50.0)

    def evaluate(self, check_stop: CheckStop) -> list[dict[str, Any]]:
        return self.reports

    def error_of(self, report: dict[str, Any]) -> float:
        return 100 - report["map_50"]

    def finish(self, check_stop: CheckStop) -> Final:
        return [report | {"coco": TWELVE, "per_class": []} for report in self.reports], {}

    def model_file(self, reports: list[dict[str, Any]]) -> bytes:
        return json.dumps(reports).encode()

    def close(self) -> None:
        self.closed += 1


def job(
    out: Path, recipe: RunRecipe = RECIPE, stop: Callable[[], int | None] = lambda: None
) -> Job[RunRecipe]:
    return Job(recipe, out, Inputs(), setup_device("fp32"), 1, stop=stop)


def carried_out(
    out: Path,
    finder: Finder,
    recipe: RunRecipe = RECIPE,
    stop: Callable[[], int | None] = lambda: None,
) -> tuple[dict[str, Any], list[RunFolder | None]]:
    """Run a task; return its result and the folders with which `begin` was called."""
    asked: list[RunFolder | None] = []

    def begin(job: Job[Any], folder: RunFolder | None) -> Task:
        asked.append(folder)
        return finder

    return train_in_folder(job(out, recipe, stop), begin), asked


def rates(out: Path) -> list[float]:
    rows = RunFolder.open(out).rows()
    return [row["learning_rate"] for row in rows if row["kind"] == "train"]


def stopping_after(updates: int) -> Callable[[], int | None]:
    count = iter(range(1, 100))
    return lambda: 15 if next(count) == updates else None


def test_reports_without_an_error_are_logged_and_drawn(tmp_path: Path) -> None:
    result, _ = carried_out(tmp_path, Finder([REPORT]))
    folder = RunFolder.open(tmp_path)
    evals = [row for row in folder.rows() if row["kind"] == "eval"]
    assert [row["iteration"] for row in evals] == [2, 4, 6, 8]
    assert {key: evals[0][key] for key in REPORT} == REPORT
    assert evals[-1]["coco"] == TWELVE
    assert "per_class" not in evals[-1]
    assert result["evaluation"][0]["per_class"] == []
    assert "test mAP@.5" in (tmp_path / "curves.svg").read_text()


def test_a_plateau_is_heard_in_the_error_that_the_task_names(tmp_path: Path) -> None:
    """With equal precision at every evaluation the first is best, and each pair is a plateau."""
    carried_out(tmp_path / "same", Finder([REPORT]))
    assert rates(tmp_path / "same") == pytest.approx([0.001] * 4 + [0.0001] * 4)
    better = Finder([REPORT])
    assert better.error_of(REPORT) == pytest.approx(18.8)


def test_a_run_may_have_nothing_to_report(tmp_path: Path) -> None:
    result, _ = carried_out(tmp_path, Finder([]))
    assert result["evaluation"] == []
    assert {row["kind"] for row in RunFolder.open(tmp_path).rows()} == {"train"}
    assert rates(tmp_path) == [0.001] * 8


def test_a_new_run_begins_before_its_folder_is_made(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def begin(job: Job[Any], folder: RunFolder | None) -> Task:
        raise ValueError(f"no data; {folder} {out.exists()}")

    with pytest.raises(ValueError, match="no data; None False"):
        train_in_folder(job(out), begin)
    assert not out.exists()


def test_a_resumed_run_begins_with_its_folder_and_ends_the_same(tmp_path: Path) -> None:
    whole, asked = carried_out(tmp_path / "whole", Finder([REPORT]))
    assert asked == [None]
    with pytest.raises(Interrupted):
        carried_out(tmp_path / "run", Finder([REPORT]), stop=stopping_after(3))
    result, asked = carried_out(tmp_path / "run", Finder([REPORT]))
    assert [folder and folder.path for folder in asked] == [tmp_path / "run"]
    assert result["state_sha256"] == whole["state_sha256"]
    assert rates(tmp_path / "run") == rates(tmp_path / "whole")


def test_what_was_measured_at_the_beginning_is_kept_and_not_written_again(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        carried_out(tmp_path, Finder([], {"mean": b"first"}), stop=stopping_after(1))
    carried_out(tmp_path, Finder([], {"mean": b"second", "colours": b"new"}))
    assert (tmp_path / "mean").read_bytes() == b"first"
    assert (tmp_path / "colours").read_bytes() == b"new"


def test_whatever_happens_the_run_is_closed_and_unlocked(tmp_path: Path) -> None:
    finder = Finder([REPORT])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="not empty"):
        carried_out(tmp_path / "full", finder)
    assert finder.closed == 1
    with pytest.raises(Interrupted):
        carried_out(tmp_path / "run", finder, stop=stopping_after(1))
    assert finder.closed == 2
    carried_out(tmp_path / "run", finder)
    assert finder.closed == 3
    _, asked = carried_out(tmp_path / "run", finder)
    assert (asked, finder.closed) == ([], 3)  # the run is finished, so `begin` is not called
    folder = RunFolder.open(tmp_path / "run")
    folder.unlock(folder.lock())


def test_a_folder_of_another_task_is_left_alone(tmp_path: Path) -> None:
    from reslab.recipes import recipe

    carried_out(tmp_path, Finder([REPORT]))
    with pytest.raises(ValueError, match="task: detection -> classification"):
        carried_out(tmp_path, Finder([REPORT]), recipe("digits-resnet20"))
