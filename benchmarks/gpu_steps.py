"""What the steps of `gpu.py` stand on: a setting, notes, and processes that are cheap to start.

A process is a fork of one that has imported everything and never touched the GPU, so that it has a
GPU context of its own: an error of the device ends a step, not the others, and nothing is imported
twice.
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

# what commands import when they are first used
HEAVY = (
    "sklearn.datasets", "matplotlib.pyplot", "torch.distributed", "torch.utils.data",
    "reslab.recipes", "reslab.training.run", "reslab.training.curves", "reslab.detection.task",
    "reslab.detection.predict", "reslab.evaluation.predict", "reslab.data.folder",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Where the steps run, and until when."""

    out: Path
    data: Path | None  # CIFAR-10
    deadline: float  # of time.monotonic()

    def size(self, on_gpu: int, otherwise: int) -> int:
        """A number for this machine; small ones without a GPU."""
        return on_gpu if gpu_is_there() else otherwise


def gpu_is_there() -> bool:
    """Whether the driver knows a GPU; without a GPU context, which forks could not share."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


class Notes:
    """What a step has found so far, in a file that outlives it."""

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
    """One of the things to find out, the seconds that it may take, and those that it must have."""

    name: str
    work: Callable[[Setting, Notes], None]
    limit: float
    least: float = 8.0


@dataclass(frozen=True)
class Fork:
    """A process that was started by `forked`, with all that it starts."""

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
        """Kill what is left of it and of the processes that it started."""
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
    """Start `work`; its words go to `log`, its value is the exit status. One that `leads` can be
    ended with all that it starts."""

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
            os._exit(status)  # the parent's threads and handlers are not this process's to end

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
    """Wait for commands; RuntimeError with its last words for one that ended otherwise."""
    for run in runs:
        run.join()
    for run in runs:
        if run.exitcode != status:
            raise RuntimeError(f"{run.log.name}: exit status {run.exitcode}\n{run.said()[-1500:]}")


def said_json(run: Fork) -> Any:
    """The JSON document among a command's words."""
    text = "\n" + run.said()
    begin = min(place for mark in "[{" if (place := text.find(f"\n{mark}")) >= 0)
    return json.JSONDecoder().raw_decode(text[begin + 1 :])[0]


def memory(run: Fork) -> float:
    """The peak of a command that has ended, GiB."""
    file = run.log.with_suffix(".memory")
    return float(file.read_text()) if file.exists() else 0.0


def wait_for(there: Callable[[], bool], run: Fork) -> bool:
    """Whether something came about while a process ran."""
    while run.is_alive():
        if there():
            return True
        time.sleep(0.005)
    return False
