"""Planned runs to finished runs, several at a time."""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from reslab.recipes import network_of
from reslab.study.experiments import PlannedRun
from reslab.study.launching import Launch, Work

Tell = Callable[[PlannedRun, int], None]  # a run and the iterations it has done
POLL_SECONDS = 0.5
SETTLED = 90.0  # seconds after which every machine sees what one of them wrote on a shared disk
TAIL = 2048  # bytes of a log, more than its last line


def carry_out(
    runs: Sequence[PlannedRun],
    launch: Launch,
    *,
    jobs: int,
    tell: Tell,
    stop: Callable[[], int | None],
) -> int | None:
    """Finish every run, `jobs` at a time; the signal's number if one came, else None.

    A run that starts from another's weights waits for it, one that is finished is not started
    again, an interrupted one goes on. A signal is passed on, and each run saves before it ends.
    RuntimeError names the first run that failed, after the others have been stopped, saved.
    """
    for run in runs:
        run.must_be_in_its_folder()
    waiting = in_turn([run for run in runs if not is_finished(run.folder)])
    for run in runs:
        if run not in waiting:
            tell(run, run.recipe.iterations)
    working: dict[PlannedRun, Work] = {}
    try:
        while waiting or working:
            while len(working) < jobs and (run := first_ready(waiting)):
                waiting.remove(run)
                printed(run).parent.mkdir(parents=True, exist_ok=True)
                working[run] = launch(run, printed(run))
            time.sleep(POLL_SECONDS)
            for run, work in list(working.items()):
                tell(run, iterations_done(run))
                if (status := work.poll()) is not None:
                    del working[run]
                    if not (stop() or has_finished(run, SETTLED if status == 0 else 0.0)):
                        raise RuntimeError(f"{run.folder}: {last_line(printed(run))}")
            if number := stop():
                return number
    finally:
        end(list(working.values()))
    return None


def end(working: Sequence[Work]) -> None:
    """Ask for a save and wait."""
    for work in working:
        if work.poll() is None:
            work.terminate()
    for work in working:
        work.wait()


def in_turn(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Those that others wait for first; then the longest first: a short run left for the end
    keeps the cores busy together."""
    wanted = {run.weights for run in runs}
    return sorted(runs, key=lambda run: (run.folder in wanted, cost(run)), reverse=True)


def first_ready(waiting: Sequence[PlannedRun]) -> PlannedRun | None:
    """The first run whose weights, if it starts from any, are there."""
    return next((run for run in waiting if not run.weights or is_finished(run.weights)), None)


def cost(run: PlannedRun) -> int:
    """How long a run takes beside others, in blocks passed by mini-batches."""
    return sum(network_of(run.recipe).blocks) * run.recipe.iterations


def printed(run: PlannedRun) -> Path:
    """The file that holds what a run printed."""
    return run.folder.parent.with_name("logs") / f"{run.folder.name}.log"


def has_finished(run: PlannedRun, seconds: float) -> bool:
    """Whether the result of a run that has ended is there, or comes within so many seconds."""
    limit = time.monotonic() + seconds
    while not (there := is_finished(run.folder)) and time.monotonic() < limit:
        time.sleep(POLL_SECONDS)
    return there


def is_finished(folder: Path) -> bool:
    return (folder / "result.json").exists()


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
