"""Run a study: start each of its runs as a `reslab train` command."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from reslab.studies.progress import RunProgress, read_progress

if TYPE_CHECKING:  # a cluster worker starts runs without importing torch
    from reslab.studies.experiments import PlannedRun

PR_SET_PDEATHSIG = 1  # linux/prctl.h
COMMAND = (
    "import sys; from reslab.studies.execute import die_with; die_with({parent}, {death}); "
    "from reslab.cli import main; sys.exit(main())"
)
POLL_SECONDS = 0.5
SHARED_DISK_SECONDS = 90.0  # until a file on a shared disk is visible to every machine


class StartedRun(Protocol):
    """A started run; subprocess.Popen implements this protocol."""

    def poll(self) -> int | None:
        """Return the exit status, or None while the run continues."""

    def terminate(self) -> None:
        """Ask the run to save a checkpoint and end."""

    def wait(self) -> int:
        """Wait for the run to end and return its exit status."""
        ...


Launcher = Callable[["PlannedRun", Path], StartedRun]  # starts a run whose output goes to a file
RunCallback = Callable[["PlannedRun", RunProgress], None]


def launch_here(data: Path | None, threads: int) -> Launcher:
    """Return a launcher that starts runs as processes on this machine."""
    return lambda run, log: start(train_arguments(run, data), log, threads)


def train_arguments(run: "PlannedRun", data: Path | None) -> list[str]:
    """Return the arguments of a run's command line, `train ...`."""
    arguments = ["train", run.base, "--out", str(run.folder), "--seed", str(run.seed)]
    arguments += ["--data", str(data)] if data else []
    arguments += ["--weights", str(run.weights)] if run.weights else []
    for change in run.changes:
        arguments += ["--set", change]
    return arguments


def start(
    arguments: Sequence[str], log: Path, threads: int, death: int = signal.SIGKILL
) -> subprocess.Popen[bytes]:
    """Start `reslab` in a process that receives the signal `death` when this process ends."""
    command = [
        sys.executable,
        "-c",
        COMMAND.format(parent=os.getpid(), death=int(death)),
        *arguments,
    ]
    with open(log, "ab") as file:
        # in its own session, so that Ctrl-C reaches only the study, which asks runs to save
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)}, start_new_session=True,
        )  # fmt: skip


def die_with(parent: int, death: int) -> None:
    """On Linux, have the system send this process the signal `death` when its parent ends.

    An orphan would continue to train while a restarted study starts the same run again.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death)
    if os.getppid() != parent:  # the parent has already ended
        os.kill(os.getpid(), death)


def run_all(
    runs: Sequence["PlannedRun"],
    launch: Launcher,
    *,
    jobs: int,
    on_event: RunCallback,
    stop: Callable[[], int | None],
) -> int | None:
    """Finish every run, `jobs` at a time; return the number of the signal received, or None.

    A run that starts from another run's weights waits for that run, finished runs are skipped, and
    interrupted runs are resumed. After a signal each run saves a checkpoint before it ends. If a
    run fails, the others save a checkpoint and end, and RuntimeError is raised, naming the run.
    """
    for run in runs:
        run.check_folder()
    waiting = in_order([run for run in runs if not is_finished(run.folder)])
    for run in runs:
        if run not in waiting:
            on_event(run, replace(read_progress(run), iterations=run.recipe.iterations))
    running: dict[PlannedRun, StartedRun] = {}
    try:
        while waiting or running:
            while len(running) < jobs and (run := first_ready(waiting)):
                waiting.remove(run)
                log_of(run).parent.mkdir(parents=True, exist_ok=True)
                running[run] = launch(run, log_of(run))
            time.sleep(POLL_SECONDS)
            for run, started in list(running.items()):
                on_event(run, read_progress(run))
                if (status := started.poll()) is not None:
                    del running[run]
                    patience = SHARED_DISK_SECONDS if status == 0 else 0.0
                    if not stop() and not has_finished(run, patience):
                        raise RuntimeError(f"{run.folder}: {last_line(log_of(run))}")
            if signal_number := stop():
                return signal_number
    finally:
        end_all(list(running.values()))
    return None


def end_all(running: Sequence[StartedRun]) -> None:
    """Ask all runs to save a checkpoint and end, then wait for each."""
    for started in running:
        if started.poll() is None:
            started.terminate()
    for started in running:
        started.wait()


def in_order(runs: Sequence["PlannedRun"]) -> list["PlannedRun"]:
    """Sort runs: first the ones that other runs wait for, then by decreasing length.

    A long run that starts last would leave cores idle.
    """
    awaited = {run.weights for run in runs}
    return sorted(runs, key=lambda run: (run.folder in awaited, run.cost), reverse=True)


def first_ready(waiting: Sequence["PlannedRun"]) -> "PlannedRun | None":
    """Return the first run that needs no weights or whose weights exist, or None."""
    return next((run for run in waiting if not run.weights or is_finished(run.weights)), None)


def log_of(run: "PlannedRun") -> Path:
    """Return the file for a run's output."""
    return run.folder.parent.with_name("logs") / f"{run.folder.name}.log"


def has_finished(run: "PlannedRun", patience: float) -> bool:
    """Return whether an ended run left a result, which may take `patience` seconds to appear."""
    limit = time.monotonic() + patience
    while not (finished := is_finished(run.folder)) and time.monotonic() < limit:
        time.sleep(POLL_SECONDS)
    return finished


def is_finished(folder: Path) -> bool:
    return (folder / "result.json").exists()


def last_line(log: Path) -> str:
    """Return the last line of a failed run's output, which states the reason."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].removeprefix("reslab: ") if lines else "failed without a message"
