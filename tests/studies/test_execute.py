import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from reslab.studies import execute as module
from reslab.studies.execute import run_all
from reslab.studies.experiments import PlannedRun, plan_detectors


class Machine:
    """Runs that finish at once, or fail; in the order in which they are started."""

    def __init__(self, failing: str = "") -> None:
        self.started: list[str] = []
        self.failing = failing

    def launch(self, run: PlannedRun, log: Path) -> "subprocess.Popen[bytes]":
        if run.weights:
            assert (run.weights / "result.json").exists()  # it waited for them
        self.started.append(run.folder.name)
        run.folder.mkdir(parents=True)
        text = f"open({str(run.folder / 'result.json')!r}, 'w')"
        if run.folder.name == self.failing:
            log.write_text("reslab: no luck\n")
            text = "raise SystemExit(1)"
        return subprocess.Popen([sys.executable, "-c", text])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)


def finish(runs: list[PlannedRun], machine: Machine, jobs: int) -> int | None:
    return run_all(
        runs, machine.launch, jobs=jobs, on_event=lambda run, done: None, stop=lambda: None
    )


def test_the_classifier_comes_first_and_its_detector_waits(tmp_path: Path) -> None:
    runs = plan_detectors(tmp_path, None, seeds=2)
    machine = Machine()
    assert finish(runs, machine, jobs=1) is None
    assert machine.started[0] == "digits-resnet20"
    assert sorted(machine.started) == sorted(run.folder.name for run in runs)


def test_what_needs_no_weights_does_not_wait(tmp_path: Path) -> None:
    machine = Machine()
    finish(plan_detectors(tmp_path, None, seeds=1), machine, jobs=2)
    assert machine.started == ["digits-resnet20", "untrained-seed1", "trained-seed1"]


def test_finished_runs_are_not_started_again(tmp_path: Path) -> None:
    runs = plan_detectors(tmp_path, None, seeds=1)
    finish(runs, Machine(), jobs=2)
    again = Machine()
    assert finish(runs, again, jobs=2) is None
    assert again.started == []


def test_nothing_starts_from_weights_that_failed(tmp_path: Path) -> None:
    machine = Machine(failing="digits-resnet20")
    with pytest.raises(RuntimeError, match="digits-resnet20: no luck"):
        finish(plan_detectors(tmp_path, None, seeds=1), machine, jobs=1)
    assert machine.started == ["digits-resnet20"]


def test_a_result_that_other_machines_see_late_is_waited_for(tmp_path: Path) -> None:
    run = plan_detectors(tmp_path, None, seeds=1)[0]
    run.folder.mkdir(parents=True)
    assert not module.has_finished(run, patience=0.0)
    Timer(0.2, (run.folder / "result.json").touch).start()
    assert module.has_finished(run, patience=20.0)
