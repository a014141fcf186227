"""Runs of several processes equal the run of one bit-exactly, even if interrupted."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import wait_until

CHANGES = [
    "iterations=20", "warmup.cap=9", "eval_every=8", "checkpoint_every=5", "recompute_bn=3",
    "batch_size=32", "precision=fp32", "model.blocks=[1,1,1]",
]  # fmt: skip
SPEEDS = ("seconds", "images_per_second")
RESLAB = ("-m", "reslab")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def words(out: Path, *more: str, changes: list[str] = CHANGES) -> list[str]:
    sets = [word for change in changes for word in ("--set", change)]
    return ["train", "digits-resnet20", "--out", str(out), *sets, *more]


def result(out: Path) -> dict[str, Any]:
    found = json.loads((out / "result.json").read_text())
    return {key: value for key, value in found.items() if key not in SPEEDS}


def rows(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in SPEEDS} for row in lines]


@contextmanager
def started(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a session of its own; kill it at the end of the test."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def ranks(process: subprocess.Popen[str]) -> dict[int, int]:
    """Return the ids of the processes that a launcher has started, by rank."""
    found = {}
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        facts = dict(entry.split(b"=", 1) for entry in environment if b"=" in entry)
        if b"RANK" in facts:
            found[int(facts[b"RANK"])] = int(child)
    return found


@pytest.fixture(scope="module")
def one(reslab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a single process with two virtual GPUs."""
    out = tmp_path_factory.mktemp("one") / "run"
    done = reslab(*words(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_two_processes_make_the_run_of_one(reslab, tmp_path: Path, engine: str) -> None:
    """Weights, momentum, statistics and log are equal; lines are printed and files written once.

    The command and its processes are started as a user starts them, not by fork.
    """
    changes = [*CHANGES, f"engine={engine}"]
    one, out = tmp_path / "one", tmp_path / "two"
    with started(*RESLAB, *words(out, "--processes", "2", "--json", changes=changes)) as process:
        done = reslab(*words(one, changes=changes))
        stdout, stderr = process.communicate()
    assert (done.returncode, process.returncode) == (0, 0), done.stderr + stderr
    printed = json.loads(stdout)
    assert printed["state_sha256"] == result(one)["state_sha256"]
    assert result(out) == result(one)
    assert rows(out) == rows(one)
    assert {path.name for path in out.iterdir()} == {path.name for path in one.iterdir()}
    reported = [line for line in stderr.splitlines() if not line.startswith("iteration")]
    assert len(reported) == 1
    assert reported[0].startswith("reslab: engine: ")
    assert stderr.count("iteration 8  test error") == 1
    environment = json.loads((out / "environment.json").read_text())
    assert (environment["processes"], environment["threads"]) == (2, 1)
    assert environment["engine"] == json.loads((one / "environment.json").read_text())["engine"]


def start_ranks(start, count: int, words: list[str]) -> list[Any]:
    """Start the processes of a run as a scheduler does, with ranks in environment variables."""
    facts = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [start(*words, **facts, RANK=str(rank)) for rank in range(count)]


def test_sizes_that_do_not_fit_are_refused_with_those_that_do(start, tmp_path: Path) -> None:
    out = tmp_path / "three"
    processes = start_ranks(start, 3, words(out, changes=["batch_size=36"]))
    ended = [process.end() for process in processes]
    assert [done.returncode for done in ended] == [2, 2, 2]
    assert "".join(done.stderr for done in ended) == (
        "reslab: 2 virtual_gpus cannot be divided evenly among 3 processes: use 1 or 2, or "
        "set virtual_gpus=3 for another run\n"
    )
    assert not out.exists()


def test_a_signal_to_one_of_two_saves_and_ends_both_and_one_goes_on(
    one: Path, start, reslab, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    processes = start_ranks(start, 2, words(out))
    wait_until((out / "checkpoints" / "00000005.safetensors").exists)
    processes[1].send_signal(signal.SIGTERM)
    ended = [process.end() for process in processes]
    assert [(done.returncode, done.stdout) for done in ended] == [(143, ""), (143, "")]
    lines = "".join(done.stderr for done in ended).splitlines()
    ours = [line for line in lines if line.startswith("reslab:")]
    assert len(ours) == 2, lines
    assert ours[0].startswith("reslab: engine: ")
    assert ours[1].startswith("reslab: stopped at iteration")
    done = reslab("resume", out)
    assert done.returncode == 0, done.stderr
    assert result(out) == result(one)
    assert rows(out) == rows(one)


@pytest.mark.slow
def test_a_signal_to_the_launcher_is_one_to_all(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with started(*RESLAB, *words(out, "--processes", "2")) as process:
        wait_until((out / "checkpoints" / "00000005.safetensors").exists, process)
        process.terminate()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert stderr.count("reslab: stopped at iteration") == 1


@pytest.mark.slow
def test_a_full_disk_ends_all_with_one_line(tmp_path: Path, refused) -> None:
    """A limit on file size stands for a full disk; only the first process writes."""
    out = tmp_path / "run"
    code = (
        "import resource, signal, sys; from reslab.cli import main; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); "
        f"sys.exit(main({words(out)!r}))"
    )
    command = (*TORCHRUN[:-1], "--standalone", "--no-python", sys.executable, "-c", code)
    with started(*command) as process:
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    ours = [line for line in stderr.splitlines() if line.startswith("reslab:")]
    failures = [line for line in ours if not line.startswith("reslab: no checkpoint at ")]
    assert len(failures) == 1, stderr
    assert "file too large" in failures[0]


@pytest.mark.slow
def test_a_scheduler_may_start_the_processes_and_hears_143(one: Path, tmp_path: Path) -> None:
    """The processes know each other by environment variables alone; both get SIGTERM."""
    out = tmp_path / "run"
    facts = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}

    def both() -> list[subprocess.Popen[str]]:
        return [
            ending.enter_context(started(*RESLAB, *words(out), **facts, RANK=str(rank)))
            for rank in range(2)
        ]

    with ExitStack() as ending:
        processes = both()
        wait_until((out / "checkpoints" / "00000005.safetensors").exists, processes[0])
        for process in processes:
            process.terminate()
        said = [process.communicate(timeout=60)[1] for process in processes]
        assert [process.returncode for process in processes] == [143, 143], said
        processes = both()
        said = [process.communicate(timeout=120)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
    assert result(out) == result(one)


@pytest.mark.slow
def test_two_machines_of_which_one_loses_its_process(one: Path, tmp_path: Path) -> None:
    """As in docs/machines.md, one torchrun per machine, here on two addresses of this machine.

    Each torchrun counts its own restarts, so the counts differ after the loss.
    """
    out = tmp_path / "run"
    endpoint = f"127.0.0.1:{free_port()}"
    with ExitStack() as ending:
        machines = [
            ending.enter_context(
                started(
                    *TORCHRUN[:2], "--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "1",
                    "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "first-run",
                    "--local-addr", address, *RESLAB, *words(out),
                )
            )
            for address in ("127.0.0.1", "127.0.0.2")
        ]  # fmt: skip
        wait_until((out / "checkpoints" / "00000005.safetensors").exists, machines[0])
        (lost,) = ranks(machines[1]).values()
        os.kill(lost, signal.SIGKILL)
        said = [machine.communicate(timeout=240)[1] for machine in machines]
        assert [machine.returncode for machine in machines] == [0, 0], said
    assert result(out) == result(one)
    assert rows(out) == rows(one)


@pytest.mark.slow
def test_torchrun_restarts_a_killed_process_and_the_run_ends_the_same(
    one: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with started(*TORCHRUN, "--max-restarts", "1", *RESLAB, *words(out)) as process:
        wait_until((out / "checkpoints" / "00000005.safetensors").exists, process)
        os.kill(ranks(process)[1], signal.SIGKILL)
        _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert "resuming from iteration" in stderr
    assert result(out) == result(one)
