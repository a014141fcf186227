"""A study on a cluster whose machines come and go: the runs of one machine, to the last bit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reslab.data.loading import usable_cores

WORKERS = Path(__file__).with_name("workers.py")
ITERATIONS = 24
STUDY = ["study", "degradation", "--depths", "20", "--iterations", str(ITERATIONS)]
NAMES = ("plain20-seed1", "resnet20-seed1")
LIMIT = 240.0  # seconds


@contextmanager
def two_workers() -> Iterator[subprocess.Popen[str]]:
    """Of as many processors each as this machine has, so that a run has as many threads."""
    cluster = subprocess.Popen(
        [sys.executable, str(WORKERS), str(usable_cores())],
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


def begun(out: Path, *more: str, address: str = "") -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"RAY_ADDRESS": address} if address else {}
    return subprocess.Popen(
        [sys.executable, "-m", "reslab", *STUDY, "--out", str(out), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def wait_for_checkpoints(out: Path, study: subprocess.Popen[str]) -> None:
    """Until every run has one."""
    limit = time.monotonic() + LIMIT
    places = [out / "runs" / name / "checkpoints" for name in NAMES]
    while not all(any(place.glob("*.safetensors")) for place in places):
        assert study.poll() is None, study.communicate()
        assert time.monotonic() < limit
        time.sleep(0.05)


def states(out: Path) -> dict[str, str]:
    found = {}
    for name in NAMES:
        result = json.loads((out / "runs" / name / "result.json").read_text())
        found[name] = result["state_sha256"]
    return found


def goings_on(out: Path) -> int:
    """How many runs were gone on with."""
    logs = [(out / "logs" / f"{name}.log").read_text() for name in NAMES]
    return sum("going on from iteration" in log for log in logs)


def test_a_cluster_makes_the_runs_of_one_machine_whatever_happens_to_it(tmp_path: Path) -> None:
    """One study is asked to stop and gone on with on this machine alone; one loses a worker."""
    stopped, lost = tmp_path / "stopped", tmp_path / "lost"
    with two_workers() as cluster:
        address = address_of(cluster)
        study = begun(stopped, "--cluster", "ray", address=address)
        wait_for_checkpoints(stopped, study)
        study.send_signal(signal.SIGTERM)
        _, err = study.communicate(timeout=LIMIT)
        assert study.returncode == 143, err
        assert err.splitlines()[-1].startswith("reslab: stopped, every run saved")
        assert goings_on(stopped) == 0

        study = begun(lost, "--cluster", "ray", address=address)
        wait_for_checkpoints(lost, study)
        lose(cluster, 0)
        out, err = study.communicate(timeout=LIMIT)
    assert study.returncode == 0, err
    assert goings_on(lost) == 1
    assert f"report: {lost / 'report.html'}" in out
    assert sorted(err.splitlines()) == [f"{name}: {ITERATIONS} iterations done" for name in NAMES]

    study = begun(stopped, "--jobs", "1")
    _, err = study.communicate(timeout=LIMIT)
    assert study.returncode == 0, err
    assert goings_on(stopped) == 2
    assert states(stopped) == states(lost)


@pytest.mark.parametrize(
    ("words", "address", "line"),
    [
        (("--cluster", "rey"), "", "no cluster 'rey'"),
        (
            ("--cluster", "ray"),
            "127.0.0.1:9",
            "no Ray cluster answers at RAY_ADDRESS",
        ),
    ],
)
def test_a_cluster_that_is_none_is_refused(
    tmp_path: Path, words: tuple[str, ...], address: str, line: str
) -> None:
    study = begun(tmp_path / "study", *words, address=address)
    out, err = study.communicate(timeout=LIMIT)
    assert (study.returncode, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert err.startswith(f"reslab: {line}")
