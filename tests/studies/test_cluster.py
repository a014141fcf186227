import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.waiting import wait_until

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


class LostRay:
    """A cluster that has lost a run, with an error that has no text."""

    class exceptions:
        class RayError(Exception):
            pass

    class TaskCancelledError(exceptions.RayError):
        pass

    def get(self, reference: object) -> int:
        raise self.TaskCancelledError


def test_a_lost_run_is_waited_for_and_its_error_is_named_without_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = lock(tmp_path)
    assert held is not None
    monkeypatch.setattr(time, "sleep", lambda seconds: os.close(held))
    log = tmp_path / "log"
    assert cluster.ClusterRun(LostRay(), None, tmp_path, log).wait() == 1
    assert not is_locked(tmp_path)
    assert log.read_text() == "reslab: TaskCancelledError\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_ignores_signals_is_interrupted_while_a_run_is_trained(
    number: signal.Signals,
) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), cluster.interrupted_by_signals():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_run_receives_its_signal_if_its_parent_is_killed(tmp_path: Path) -> None:
    """The run is a stand-in that ignores the signal long enough to write that it came."""
    code = (
        "import os, signal, time; from reslab.studies.execute import die_with\n"
        "parent, child = os.getpid(), os.fork()\n"
        "if child == 0:\n"
        f"    signal.signal(signal.SIGTERM, lambda *_: open({str(tmp_path / 'saved')!r}, 'w'))\n"
        "    die_with(parent, signal.SIGTERM); print('ready', flush=True)\n"
        "for _ in range(0 if child else 1000):\n"
        f"    time.sleep(0 if os.path.exists({str(tmp_path / 'saved')!r}) else 0.02)\n"
        "time.sleep(60 if child else 0)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        run.kill()
    wait_until((tmp_path / "saved").exists)


def test_a_run_waits_for_an_unreachable_machine_and_is_cancelled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes must not share a folder; a second signal would keep the run from saving."""
    held = lock(tmp_path)
    assert held is not None
    assert is_locked(tmp_path)
    process = Process()

    def start(arguments: list[str], log: Path, threads: int, death: int) -> Process:
        assert not is_locked(tmp_path)
        assert (arguments, log, threads) == (["train"], tmp_path / "log", 3)
        return process

    monkeypatch.setattr(cluster, "start", start)
    monkeypatch.setattr(time, "sleep", lambda seconds: os.close(held))
    assert run_on_worker(["train"], str(tmp_path), str(tmp_path / "log"), 3) == 143
    assert process.terminated == 1
    assert not is_locked(tmp_path / "nothing here")
