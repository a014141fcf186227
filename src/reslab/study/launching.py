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
    from reslab.study.experiments import PlannedRun

PR_SET_PDEATHSIG = 1  # linux/prctl.h
GUARDED = (
    "import sys; from reslab.study.launching import end_with; end_with({parent}); "
    "from reslab.cli import main; sys.exit(main())"
)


class Work(Protocol):
    """A run that was started, as subprocess.Popen is one."""

    def poll(self) -> int | None:
        """Its exit status once it has ended."""

    def terminate(self) -> None:
        """Ask it to save and end."""

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        ...


# start a run; what it prints goes to the file
Launch = Callable[["PlannedRun", Path], Work]


def here(data: Path | None, threads: int) -> Launch:
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
