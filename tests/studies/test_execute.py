import signal
from pathlib import Path

import pytest

from reslab.studies import execute
from reslab.studies.execute import (
    has_finished,
    run_all,
    start,
    train_arguments,
)
from reslab.studies.experiments import PlannedRun, plan_detectors


class Started:
    """A run that ends as soon as it is polled, or when it is terminated."""

    def __init__(self, folder: Path, status: int | None) -> None:
        self.folder, self.status = folder, status

    def poll(self) -> int | None:
        if self.status == 0:
            (self.folder / "result.json").touch()
        return self.status

    def terminate(self) -> None:
        self.status = 143

    def wait(self) -> int:
        assert self.status is not None
        return self.status


class Machine:
    """Finish runs in the order in which they are started; one may fail, one may never end."""

    def __init__(self, failing: str = "", endless: str = "") -> None:
        self.failing, self.endless = failing, endless
        self.started: dict[str, Started] = {}

    def launch(self, run: PlannedRun, log: Path) -> Started:
        if run.weights:
            assert (run.weights / "result.json").exists()  # the run has waited for its weights
        name = run.folder.name
        run.folder.mkdir(parents=True)
        status: int | None = 0
        if name == self.failing:
            log.write_text("reslab: no luck\n")
            status = 1
        elif name == self.endless:
            status = None
        self.started[name] = Started(run.folder, status)
        return self.started[name]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "POLL_SECONDS", 0.0)


def finish(
    runs: list[PlannedRun], machine: Machine, jobs: int, signals: tuple[int | None, ...] = ()
) -> int | None:
    pending = iter(signals)
    return run_all(
        runs, machine.launch, jobs=jobs, on_event=lambda run, progress: None,
        stop=lambda: next(pending, None),
    )  # fmt: skip


def test_the_classifier_comes_first_and_its_detector_waits(tmp_path: Path) -> None:
    runs = plan_detectors(tmp_path, None, seeds=2)
    machine = Machine()
    assert finish(runs, machine, jobs=1) is None
    assert next(iter(machine.started)) == "digits-resnet20"
    assert sorted(machine.started) == sorted(run.folder.name for run in runs)


def test_runs_that_need_no_weights_do_not_wait(tmp_path: Path) -> None:
    machine = Machine()
    finish(plan_detectors(tmp_path, None, seeds=1), machine, jobs=2)
    assert list(machine.started) == ["digits-resnet20", "untrained-seed1", "trained-seed1"]


def test_finished_runs_are_not_started_again(tmp_path: Path) -> None:
    runs = plan_detectors(tmp_path, None, seeds=1)
    finish(runs, Machine(), jobs=2)
    again = Machine()
    assert finish(runs, again, jobs=2) is None
    assert not again.started


def test_nothing_starts_from_weights_that_failed(tmp_path: Path) -> None:
    machine = Machine(failing="digits-resnet20")
    with pytest.raises(RuntimeError, match="digits-resnet20: no luck"):
        finish(plan_detectors(tmp_path, None, seeds=1), machine, jobs=1)
    assert list(machine.started) == ["digits-resnet20"]


def test_a_failure_stops_the_other_runs(tmp_path: Path) -> None:
    machine = Machine(failing="untrained-seed1", endless="digits-resnet20")
    with pytest.raises(RuntimeError, match="untrained-seed1: no luck"):
        finish(plan_detectors(tmp_path, None, seeds=1), machine, jobs=2)
    assert machine.started["digits-resnet20"].status == 143


def test_a_signal_is_passed_on(tmp_path: Path) -> None:
    machine = Machine(endless="digits-resnet20")
    runs = plan_detectors(tmp_path, None, seeds=1)
    assert finish(runs, machine, jobs=1, signals=(None, signal.SIGTERM)) == signal.SIGTERM
    assert machine.started["digits-resnet20"].status == 143


def test_a_result_may_appear_late_on_a_shared_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plan_detectors(tmp_path, None, seeds=1)[0]
    run.folder.mkdir(parents=True)
    assert not has_finished(run, patience=0.0)
    result = run.folder / "result.json"
    monkeypatch.setattr(execute.time, "sleep", lambda seconds: result.touch())
    assert has_finished(run, patience=20.0)


def test_a_run_is_started_as_a_train_command(tmp_path: Path) -> None:
    run = PlannedRun("digits-resnet20", ("iterations=4",), 2, Path("out"), Path("trunk"))
    assert train_arguments(run, Path("data")) == [
        "train", "digits-resnet20", "--out", "out", "--seed", "2", "--data", "data",
        "--weights", "trunk", "--set", "iterations=4",
    ]  # fmt: skip
    log = tmp_path / "log"
    assert start(["--version"], log, threads=1).wait() == 0
    assert log.read_text().startswith("reslab")
