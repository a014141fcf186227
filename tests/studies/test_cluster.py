import os
import subprocess
import time
from pathlib import Path

import pytest

from reslab.runtime.writing import is_locked, lock
from reslab.studies import cluster
from reslab.studies.cluster import resources_per_run, run_on_worker

LARGE = {"CPU": 64.0, "GPU": 8.0, "memory": 1e12}
SMALL = {"CPU": 6.0, "memory": 1e10}
HEAD = {"CPU": 0.0, "memory": 1e10}


@pytest.mark.parametrize(
    ("machines", "jobs", "share"),
    [
        ([SMALL], 1, (6, 0)),
        ([SMALL], 4, (1, 0)),
        ([SMALL], 9, (1, 0)),  # more runs than processors share them
        ([HEAD, SMALL, {"CPU": 4.0}], 2, (2, 0)),  # so that they fit the smallest machine
        ([LARGE], 8, (8, 1)),  # a GPU is not shared if there are enough of them
        ([LARGE], 16, (4, 0.5)),
        ([LARGE, {"CPU": 16.0, "GPU": 1.0}], 2, (8, 0.5)),
        ([HEAD, LARGE, SMALL], 1, (64, 1)),  # runs are placed on machines with GPUs
    ],
)
def test_each_machine_takes_as_many_runs_as_asked(machines, jobs, share) -> None:
    assert resources_per_run(machines, jobs) == share


def test_a_cluster_without_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="no machine in the Ray cluster offers a CPU"):
        resources_per_run([HEAD], 1)


class Process:
    """A process that is cancelled twice while it is running, then ends."""

    def __init__(self) -> None:
        self.waits = iter(
            (subprocess.TimeoutExpired("", 0), KeyboardInterrupt(), KeyboardInterrupt())
        )
        self.terminated = 0

    def wait(self, seconds: float) -> int:
        for error in self.waits:
            raise error
        return 143

    def terminate(self) -> None:
        self.terminated += 1


def test_a_run_waits_for_an_unreachable_machine_and_is_cancelled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes must not share a folder; a second signal would keep the run from saving."""
    held = lock(tmp_path)
    assert held is not None
    assert is_locked(tmp_path)
    process = Process()

    def start(arguments: list[str], log: Path, threads: int) -> Process:
        assert not is_locked(tmp_path)
        assert (arguments, log, threads) == (["train"], tmp_path / "log", 3)
        return process

    monkeypatch.setattr(cluster, "start", start)
    monkeypatch.setattr(time, "sleep", lambda seconds: os.close(held))
    assert run_on_worker(["train"], str(tmp_path), str(tmp_path / "log"), 3) == 143
    assert process.terminated == 1
    assert not is_locked(tmp_path / "nothing here")
