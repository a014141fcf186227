"""Planned runs to finished runs: several processes, each one run at a time."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from reslab.recipes import network_of
from reslab.study.experiments import PlannedRun
from reslab.train.folder import RunFolder

# how a run is started: the run, the threads it may use, the file for what it prints
Launch = Callable[[PlannedRun, int, Path], subprocess.Popen[bytes]]
Tell = Callable[[PlannedRun, int], None]  # a run and the iterations it has done
POLL_SECONDS = 0.5
TAIL = 2048  # bytes of a log, more than its last line


def carry_out(
    runs: Sequence[PlannedRun],
    launch: Launch,
    *,
    jobs: int,
    cores: int,
    tell: Tell,
    stop: Callable[[], int | None],
) -> int | None:
    """Finish every run, `jobs` at a time; the signal's number if one came, else None.

    A run that is finished is not started again, an interrupted one goes on. A signal is passed
    on, and each run saves before it ends. RuntimeError names the first run that failed, after the
    others have been stopped, saved.
    """
    for run in runs:
        if (run.folder / "recipe.json").exists():
            RunFolder(run.folder).must_hold(run.recipe, run.seed)
    # the longest first: a short run left for the end keeps the cores busy together
    waiting = sorted((run for run in runs if not is_finished(run)), key=cost, reverse=True)
    for run in runs:
        if run not in waiting:
            tell(run, run.recipe.iterations)
    threads = max(1, cores // jobs)
    working: dict[PlannedRun, subprocess.Popen[bytes]] = {}
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                run = waiting.pop(0)
                printed(run).parent.mkdir(parents=True, exist_ok=True)
                working[run] = launch(run, threads, printed(run))
            time.sleep(POLL_SECONDS)
            for run, process in list(working.items()):
                tell(run, iterations_done(run))
                if process.poll() is not None:
                    del working[run]
                    if not is_finished(run) and not stop():
                        raise RuntimeError(f"{run.folder}: {last_line(printed(run))}")
            if number := stop():
                return number
    finally:
        end(list(working.values()))
    return None


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask for a save and wait; a process that a terminal's Ctrl-C has reached saves once."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        process.wait()


def cost(run: PlannedRun) -> int:
    """How long a run takes beside others, in blocks passed by mini-batches."""
    return sum(network_of(run.recipe).blocks) * run.recipe.iterations


def printed(run: PlannedRun) -> Path:
    """The file that holds what a run printed."""
    return run.folder.parent.with_name("logs") / f"{run.folder.name}.log"


def is_finished(run: PlannedRun) -> bool:
    return (run.folder / "result.json").exists()


def iterations_done(run: PlannedRun) -> int:
    """How far the log of a run has come."""
    try:
        with open(run.folder / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
        return json.loads(lines[-1])["iteration"]
    except (OSError, IndexError, ValueError):  # nothing yet, or a line that is being written
        return 0


def last_line(log: Path) -> str:
    """Why a run failed, in its own words."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].removeprefix("reslab: ") if lines else "failed without a word"
