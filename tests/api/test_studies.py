"""Studies and reports from Python; the command's tests run the paper's."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reslab
from reslab.api import studies
from reslab.studies.progress import Forecast, RunProgress
from reslab.training.folder import RunFolder

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
    announced, *begun = events[:3]
    runs = [event for event in events if event["kind"] == "run"]
    assert announced["text"] == (
        f"2 runs of 2 iterations, 2 at a time; then the results in {page.path}. "
        "Ctrl-C saves the runs and draws their curves so far"
    )
    assert [(event["run"], event["done"]) for event in begun] == [("0.0001", 0), ("0.01", 0)]
    last = {event["run"]: (event["done"], event["total"]) for event in runs}
    assert last == {"0.0001": (2, 2), "0.01": (2, 2)}
    events.clear()
    reslab.study(study, jobs=2, on_event=events.append)
    assert {event["kind"] for event in events} == {"run"}  # nothing to announce
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
    with pytest.raises(ValueError, match="'Weight decay' has no runs"):
        reslab.study(reslab.Study(study.heading, study.folder, ()))
    with pytest.raises(ValueError, match="no cluster 'slurm'"):
        reslab.study(study, cluster="slurm")
    with pytest.raises(ValueError, match="give the folders of finished runs"):
        reslab.study("responses")
    with pytest.raises(ValueError, match="at least one run folder"):
        reslab.report([])


def test_ctrl_c_saves_the_runs_and_says_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = 0

    def run_all(runs: Any, launch: Any, *, stop: Callable[[], int | None], **more: Any) -> object:
        for run in runs[:finished]:
            reslab.train(run.recipe, run.folder, on_event=None)
        signal.raise_signal(signal.SIGINT)
        return stop()

    monkeypatch.setattr(studies, "run_all", run_all)
    with pytest.raises(KeyboardInterrupt, match=r"every run in .* saved; the same call resumes"):
        reslab.study(weight_decays(tmp_path), on_event=None)
    page = tmp_path / "report.html"
    assert not page.exists()  # nothing to draw yet
    finished = 1
    with pytest.raises(KeyboardInterrupt, match=r"curves so far in .*report\.html; the same call"):
        reslab.study(weight_decays(tmp_path), on_event=None)
    assert "1 of 2 runs have finished" in page.read_text()


def test_a_damaged_log_does_not_keep_a_stopped_study_from_ending(tmp_path: Path) -> None:
    events: list[Any] = []
    study = weight_decays(tmp_path / "study")
    run = study.runs[0]
    RunFolder.create(run.folder, run.recipe, {"seed": 1, "data": None})
    (run.folder / "metrics.jsonl").write_text('{"kind": "train"}\n')
    assert studies.page_so_far(study, events.append) is None
    assert "the page with the curves so far is missing" in events[0]["text"]
    assert "metrics.jsonl" in events[0]["text"]


def test_the_time_left_is_reported_first_and_after_each_run(tmp_path: Path) -> None:
    class Known(Forecast):
        def seconds_left(self) -> float | None:
            return 60.0 * (2 - self.ended) if self.advances else None

    runs = weight_decays(tmp_path).runs
    lines: list[Any] = []
    report = studies.reporting_runs(runs, Known(runs, slots=2), lines.append)
    for done in (0, 1, 2):
        report(runs[0], RunProgress(done, 50.0))
    report(runs[1], RunProgress(2, 25.0))
    notes = [event["text"] for event in lines if event["kind"] == "note"]
    assert notes == ["about 0:02:00 left", "about 0:01:00 left"]
    assert lines[-1] == {
        "kind": "run", "run": "0.01", "done": 2, "total": 2, "train_error": 25.0
    }  # fmt: skip


def test_runs_share_the_cores_that_fewer_runs_than_jobs_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    def run_all(runs: Any, launch: Any, *, jobs: int, **more: Any) -> object:
        given.append(jobs)
        return signal.SIGTERM

    monkeypatch.setattr(studies, "usable_cores", lambda: 8)
    monkeypatch.setattr(studies, "launch_here", lambda data, threads: given.append(threads))
    monkeypatch.setattr(studies, "run_all", run_all)
    with pytest.raises(KeyboardInterrupt):
        reslab.study(weight_decays(tmp_path), jobs=8, on_event=None)
    assert given == [4, 2]  # threads for each run, runs at a time
