"""Common parts of the steps of `gpu.py`: settings, notes, and processes that start quickly.

Each process is a fork of one that has imported everything but never used the GPU. So it has its own
GPU context, in which a device error ends one step and not the others, and imports nothing twice.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import reslab.cli
from reslab.runtime.threads import usable_cores

# modules that commands import lazily
HEAVY = (
    "sklearn.datasets", "matplotlib.pyplot", "torch.distributed", "torch.utils.data",
    "reslab.recipes", "reslab.training.run", "reslab.training.curves", "reslab.detection.task",
    "reslab.detection.predict", "reslab.evaluation.predict", "reslab.data.folder",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """The folders and the deadline of all steps."""

    out: Path
    data: Path | None  # CIFAR-10
    deadline: float  # as time.monotonic()

    def size(self, on_gpu: int, otherwise: int) -> int:
        """Return the size for this machine: a small one without a GPU."""
        return on_gpu if gpu_is_there() else otherwise


def gpu_is_there() -> bool:
    """Return whether there is a GPU, without creating a context, which forks could not share."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


class Notes:
    """The results of a step so far, in a file that remains if the step is killed."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.facts: dict[str, Any] = {}

    def add(self, **facts: Any) -> None:
        self.facts |= facts
        self.file.write_text(json.dumps(self.facts))

    def read(self) -> dict[str, Any]:
        return json.loads(self.file.read_text()) if self.file.exists() else {}


@dataclass(frozen=True)
class Step:
    """A check or measurement, its time limit and the least time that it needs, in seconds."""

    name: str
    work: Callable[[Setting, Notes], None]
    limit: float
    least: float = 8.0


@dataclass(frozen=True)
class Fork:
    """A process started by `forked`, together with its child processes."""

    process: Any
    log: Path

    def join(self, seconds: float | None = None) -> None:
        self.process.join(seconds)

    def is_alive(self) -> bool:
        return self.process.is_alive()

    @property
    def exitcode(self) -> int | None:
        return self.process.exitcode

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> None:
        """Kill the process group and wait for the process."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def preload() -> None:
    """Import what the steps need, before any of them is forked."""
    for name in HEAVY:
        import_module(name)


def forked(work: Callable[[], int], log: Path, *, leads: bool = False) -> Fork:
    """Run `work` in a fork: its output goes to `log`, its value is the exit status.

    With `leads` the fork leads a process group, so that `end` also kills its children.
    """

    def run() -> None:
        if leads:
            os.setpgid(0, 0)
        with open(log, "wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        status = 1
        try:
            status = work()
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # without the parent's exit handlers

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return Fork(process, log)


def command(
    log: Path, *words: object, cpu: bool = False, deterministic: bool = False, threads: int = 0
) -> Fork:
    """Start `reslab WORDS`; `LOG.memory` will hold the peak of the GPU's memory in GiB.

    `deterministic` has torch use only kernels that repeat their bits.
    """

    def work() -> int:
        sys.argv = ["reslab", *map(str, words)]
        os.environ["RESLAB_TRACEBACK"] = "1"
        if cpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        torch.set_num_threads((threads or usable_cores()) if gpu_is_there() else 1)
        if deterministic:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
            torch.use_deterministic_algorithms(True, warn_only=True)
        status = reslab.cli.main(sys.argv[1:])
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated() / 2**30
            log.with_suffix(".memory").write_text(f"{peak:.2f}")
        return status

    return forked(work, log)


def finished(*runs: Fork, status: int = 0) -> None:
    """Wait for commands; raise RuntimeError with the end of its output if one fails."""
    for run in runs:
        run.join()
    for run in runs:
        if run.exitcode != status:
            raise RuntimeError(f"{run.log.name}: exit status {run.exitcode}\n{run.said()[-1500:]}")


def said_json(run: Fork) -> Any:
    """Parse the JSON document in a command's output."""
    text = "\n" + run.said()
    begin = min(place for mark in "[{" if (place := text.find(f"\n{mark}")) >= 0)
    return json.JSONDecoder().raw_decode(text[begin + 1 :])[0]


def memory(run: Fork) -> float:
    """Return the peak GPU memory of a finished command in GiB."""
    file = run.log.with_suffix(".memory")
    return float(file.read_text()) if file.exists() else 0.0


def wait_for(condition: Callable[[], bool], run: Fork) -> bool:
    """Wait until a condition holds or a process ends; return whether the condition held."""
    while run.is_alive():
        if condition():
            return True
        time.sleep(0.005)
    return False
