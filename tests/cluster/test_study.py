"""A study on a cluster that loses a worker gives bit-exactly the runs of a single machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.waiting import wait_until

from reslab.cli import main
from reslab.runtime.threads import core_numbers

WORKERS = Path(__file__).with_name("workers.py")
ITERATIONS = 24
STUDY = ["study", "degradation", "--depths", "20", "--iterations", str(ITERATIONS)]
NAMES = ("plain20-seed1", "resnet20-seed1")
LIMIT = 240.0  # seconds


@contextmanager
def two_workers() -> Iterator[subprocess.Popen[str]]:
    """Start a cluster of two workers with one processor each."""
    cluster = subprocess.Popen(
        [sys.executable, str(WORKERS), "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield cluster
    finally:
        cluster.communicate(timeout=60)


def address_of(cluster: subprocess.Popen[str]) -> str:
    assert cluster.stdout is not None
    return cluster.stdout.readline().strip()


def lose(cluster: subprocess.Popen[str], worker: int) -> None:
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    cluster.stdin.write(f"{worker}\n")
    cluster.stdin.flush()
    assert cluster.stdout.readline() == "ended\n"


def start_study(out: Path, *more: str, address: str = "") -> subprocess.Popen[str]:
    """Start the study in a process that may use only one core: every run then has one thread."""
    environment = os.environ | ({"RAY_ADDRESS": address} if address else {})
    core = min(core_numbers())
    code = f"import os, sys; os.sched_setaffinity(0, [{core}]); from reslab.cli import main; "
    return subprocess.Popen(
        [sys.executable, "-c", f"{code} sys.exit(main())", *STUDY, "--out", str(out), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def wait_for_checkpoints(out: Path, study: subprocess.Popen[str]) -> None:
    """Wait until every run has a checkpoint."""
    folders = [out / "runs" / name / "checkpoints" for name in NAMES]
    wait_until(
        lambda: all(any(folder.glob("*.safetensors")) for folder in folders), study, seconds=LIMIT
    )


def states(out: Path) -> dict[str, str]:
    results = {name: out / "runs" / name / "result.json" for name in NAMES}
    return {name: json.loads(file.read_text())["state_sha256"] for name, file in results.items()}


def resumed_runs(out: Path) -> int:
    """Count the runs that were resumed."""
    logs = [(out / "logs" / f"{name}.log").read_text() for name in NAMES]
    return sum("resuming from iteration" in log for log in logs)


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_runs_of_one_machine(tmp_path: Path) -> None:
    lost, local = tmp_path / "lost", tmp_path / "local"
    with two_workers() as cluster:
        study = start_study(lost, "--cluster", "ray", address=address_of(cluster))
        wait_for_checkpoints(lost, study)
        lose(cluster, 0)
        out, err = study.communicate(timeout=LIMIT)
    assert study.returncode == 0, err
    assert resumed_runs(lost) == 1
    assert f"report: {lost / 'report.html'}" in out
    announced, *lines = err.splitlines()
    assert announced.startswith(f"reslab: 2 runs of {ITERATIONS} iterations; then the results in")
    ended = [line.split()[1] for line in lines if line.startswith(f"{ITERATIONS}/{ITERATIONS} ")]
    assert sorted(ended) == [*NAMES]

    study = start_study(local, "--jobs", "1")
    _, err = study.communicate(timeout=LIMIT)
    assert study.returncode == 0, err
    assert states(local) == states(lost)


@pytest.mark.slow
def test_a_study_stopped_on_a_cluster_resumes_without_it(tmp_path: Path) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    with two_workers() as cluster:
        study = start_study(stopped, "--cluster", "ray", address=address_of(cluster))
        wait_for_checkpoints(stopped, study)
        study.send_signal(signal.SIGTERM)
        _, err = study.communicate(timeout=LIMIT)
    assert study.returncode == 143, err
    assert err.splitlines()[-1].startswith(f"reslab: stopped, every run in {stopped} saved")
    assert resumed_runs(stopped) == 0
    for out in (stopped, whole):
        study = start_study(out, "--jobs", "1")
        _, err = study.communicate(timeout=LIMIT)
        assert study.returncode == 0, err
    assert resumed_runs(stopped) == 2
    assert states(stopped) == states(whole)


@pytest.mark.parametrize(
    ("cluster", "address", "line"),
    [
        ("rey", "", "no cluster 'rey'"),
        ("ray", "127.0.0.1:9", "no Ray cluster answers at RAY_ADDRESS"),
    ],
)
def test_an_unknown_or_unreachable_cluster_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, cluster: str, address: str, line: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert main([*STUDY, "--out", str(tmp_path / "study"), "--cluster", cluster]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith(f"reslab: {line}")
