"""How a run of a study is started: as the command that a person would type."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a worker of a cluster starts runs without importing all that they need
    from reslab.studies.experiments import PlannedRun
import json
import time

from reslab.recipes import network_of
from reslab.studies.experiments import PlannedRun

PR_SET_PDEATHSIG = 1  # linux/prctl.h
GUARDED = (
    "import sys; from reslab.studies.execute import end_with; end_with({parent}); "
    "from reslab.cli import main; sys.exit(main())"
)


class StartedRun(Protocol):
    """A run that was started, as subprocess.Popen is one."""

    def poll(self) -> int | None:
        """Its exit status once it has ended."""

    def terminate(self) -> None:
        """Ask it to save and end."""

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        ...


# start a run; what it prints goes to the file
Launcher = Callable[["PlannedRun", Path], StartedRun]


def launch_here(data: Path | None, threads: int) -> Launcher:
    """Runs as processes of this machine."""
    return lambda run, log: start(words_of(run, data), log, threads)


def words_of(run: "PlannedRun", data: Path | None) -> list[str]:
    """`train ...`"""
    words = ["train", run.base, "--out", str(run.folder), "--seed", str(run.seed)]
    words += ["--data", str(data)] if data else []
    words += ["--weights", str(run.weights)] if run.weights else []
    for change in run.changes:
        words += ["--set", change]
    return words


def start(words: Sequence[str], log: Path, threads: int) -> subprocess.Popen[bytes]:
    """`reslab` in a process that ends when this one does, however this one ends."""
    command = [sys.executable, "-c", GUARDED.format(parent=os.getpid()), *words]
    with open(log, "ab") as file:
        # a session of its own: Ctrl-C reaches the study alone, which asks each run to save
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)}, start_new_session=True,
        )  # fmt: skip


def end_with(parent: int) -> None:
    """Have this process killed when its parent ends: what goes on then would be two runs in one
    folder. Where the system is not Linux, a run goes on until it is finished."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os.kill(os.getpid(), signal.SIGKILL)


RunCallback = Callable[[PlannedRun, int], None]  # a run and the iterations it has done
RUN_POLL_SECONDS = 0.5
SHARED_DISK_SECONDS = (
    90.0  # seconds after which every machine sees what one of them wrote on a shared disk
)
TAIL = 2048  # bytes of a log, more than its last line


def run_all(
    runs: Sequence[PlannedRun],
    launch: Launcher,
    *,
    jobs: int,
    on_event: RunCallback,
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
            on_event(run, run.recipe.iterations)
    working: dict[PlannedRun, StartedRun] = {}
    try:
        while waiting or working:
            while len(working) < jobs and (run := first_ready(waiting)):
                waiting.remove(run)
                printed(run).parent.mkdir(parents=True, exist_ok=True)
                working[run] = launch(run, printed(run))
            time.sleep(RUN_POLL_SECONDS)
            for run, work in list(working.items()):
                on_event(run, iterations_done(run))
                if (status := work.poll()) is not None:
                    del working[run]
                    if not (
                        stop() or has_finished(run, SHARED_DISK_SECONDS if status == 0 else 0.0)
                    ):
                        raise RuntimeError(f"{run.folder}: {last_line(printed(run))}")
            if number := stop():
                return number
    finally:
        end(list(working.values()))
    return None


def end(working: Sequence[StartedRun]) -> None:
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
        time.sleep(RUN_POLL_SECONDS)
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
