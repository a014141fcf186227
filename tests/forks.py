"""Python processes by fork, from a process in which everything is imported already.

A process that starts Python and torch for a command of a second costs several. The server here
imports all that the command ever needs, computes nothing, and makes a copy of itself by fork for
each process; what the command starts itself, the processes of a run and the runs of a study, are
copies too. A request is a line of JSON on standard input: a command to start, answered by the id of
its process; an id to wait for, answered by the exit status; or an id that may have ended: 0 or 1.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO
from unittest.mock import patch

import jinja2
import matplotlib.figure
import rich.console
import sklearn.datasets
import torch._dynamo

import reslab.detection.alternating
import reslab.evaluation.predict
import reslab.recipes
import reslab.studies.page.classifiers
import reslab.training.curves
from reslab.runtime import device, launch
from reslab.studies import execute

IMPORTED = (
    jinja2,
    matplotlib.figure,
    rich.console,
    sklearn.datasets,
    torch._dynamo,
    reslab.detection.alternating,
    reslab.evaluation.predict,
    reslab.recipes,
    reslab.studies.page.classifiers,
    reslab.training.curves,
)  # what the command imports on its way

LIMIT = 300  # seconds; who takes longer hangs


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `python script ...`, `python -m module ...` or `python -c code ...`; never return."""
    signal.alarm(LIMIT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may ignore it
    status = 1
    try:
        os.environ.clear()
        os.environ |= environment
        match command[1:]:
            case ["-c", code, *arguments]:
                sys.argv = ["-c", *arguments]
                exec(code, {"__name__": "__main__"})
            case ["-m", module, *arguments]:
                sys.argv = [module, *arguments]
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            case [script, *arguments]:
                sys.argv = [script, *arguments]
                runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class ForkedProcess:
    """What the command needs of subprocess.Popen."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], start_new_session: bool,
        stdin: int | None = None, stdout: IO[bytes] | None = None, stderr: IO[bytes] | None = None,
    ) -> None:  # fmt: skip
        assert stdin in (None, subprocess.DEVNULL)
        sys.stdout.flush()
        sys.stderr.flush()
        self.status: int | None = None
        if pid := os.fork():
            self.pid = pid
            return
        # until the command has its own, which a new process has at once
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if start_new_session:
            os.setsid()
        for number, file in ((1, stdout), (2, stderr)):
            if file:
                os.dup2(file.fileno(), number)
        run_command(command, env)

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        status = self._wait(0)
        assert status is not None
        return status

    def _wait(self, options: int) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, options)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


FORKS = SimpleNamespace(Popen=ForkedProcess, DEVNULL=subprocess.DEVNULL)


def begin(command: list[str], environment: dict[str, str], out: str, err: str) -> int:
    """Start a command that prints into two files; return the id of its process."""
    with open(os.devnull) as nothing, open(out, "wb") as stdout, open(err, "wb") as stderr:
        child = os.fork()
        if not child:
            os.dup2(nothing.fileno(), 0)
            os.dup2(stdout.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            run_command(command, environment)
    return child


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
        elif "ended" in request:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            print(int(os.waitid(os.P_PID, request["ended"], options) is not None), flush=True)
        else:
            print(begin(**request), flush=True)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])
    with (
        patch.object(launch, "subprocess", FORKS),
        patch.object(execute, "subprocess", FORKS),
        patch.object(device, "_has_bf16", lambda _: False),  # as tests/conftest.py
    ):
        serve()
