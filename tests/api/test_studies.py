"""Studies and reports from Python; the command's tests run the paper's."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reslab
from reslab.api import studies

SHORT = (
    "iterations=2", "batch_size=16", "model.blocks=[1,1,1]", "model.widths=[4,4,4]",
    "recompute_bn=1",
)  # fmt: skip


def weight_decays(out: Path) -> reslab.Study:
    """A question of one's own: two weight decays."""
    runs = tuple(
        reslab.PlannedRun(
            "digits-resnet20", (*SHORT, f"weight_decay={decay}"), 1, out / "runs" / str(decay)
        )
        for decay in (0.0001, 0.01)
    )
    return reslab.Study(("Weight decay", "How much of it?"), out, runs)


def test_a_study_of_ones_own(tmp_path: Path) -> None:
    events: list[Any] = []
    study = weight_decays(tmp_path / "study")
    page = reslab.study(study, jobs=2, on_event=events.append)
    assert page.path == tmp_path / "study" / "report.html"
    assert [run.folder.name for run in page.runs] == ["0.0001", "0.01"]
    assert all(run.iterations == 2 for run in page.runs)
    assert "weight_decay" in page.path.read_text()
    begun, ended = events[:2], events[-2:]
    assert [(event["run"], event["done"]) for event in begun] == [("0.0001", 0), ("0.01", 0)]
    assert {(event["run"], event["done"], event["total"]) for event in ended} <= {
        ("0.0001", 2, 2), ("0.01", 2, 2),
    }  # fmt: skip
    again = reslab.report([run.folder for run in page.runs], tmp_path / "report")
    assert again.runs == page.runs
    responses = reslab.study(
        "responses", [page.runs[0].folder], out=tmp_path / "responses", on_event=None
    )
    assert (tmp_path / "responses" / "figures" / "responses.svg").exists()
    assert len(responses.runs) == 1


def test_arguments_that_a_study_does_not_take(tmp_path: Path) -> None:
    study = weight_decays(tmp_path)
    with pytest.raises(ValueError, match="seeds=0: at least 1"):
        reslab.study(study, seeds=0)
    with pytest.raises(ValueError, match="`depths` 20 does not apply"):
        reslab.study(study, depths=[20])
    with pytest.raises(ValueError, match=r"`out` .* does not apply"):
        reslab.study(study, out=tmp_path)
    with pytest.raises(ValueError, match="no cluster 'slurm'"):
        reslab.study(study, cluster="slurm")
    with pytest.raises(ValueError, match="give the folders of finished runs"):
        reslab.study("responses")
    with pytest.raises(ValueError, match="at least one run folder"):
        reslab.report([])


def test_ctrl_c_saves_the_runs_and_says_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_all(runs: Any, launch: Any, *, stop: Callable[[], int | None], **more: Any) -> object:
        signal.raise_signal(signal.SIGINT)
        return stop()

    monkeypatch.setattr(studies, "run_all", run_all)
    with pytest.raises(KeyboardInterrupt, match=r"every run in .* saved; the same call resumes"):
        reslab.study(weight_decays(tmp_path), on_event=None)
