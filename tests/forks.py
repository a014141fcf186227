"""Start Python processes by forking a process that has already imported everything.

Starting Python and torch takes seconds, for commands that take one. This server imports every
module that a command may need, computes nothing, and forks once per command; the processes that a
command starts itself (of a run, of a study) are forks too. A request is a line of JSON on standard
input: a command to start, answered with its process id; an id to wait for, answered with the exit
status; or an id to poll, answered with 1 if that process has ended, else 0.
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
)  # modules that commands import lazily

LIMIT = 300  # seconds after which a command counts as hanging


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `python script ...`, `python -m module ...` or `python -c code ...`; never return."""
    signal.alarm(LIMIT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may run with it ignored
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
    """A stand-in for subprocess.Popen with the methods that reslab calls."""

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
        # not the server's handlers: a new process has the defaults until the command sets its own
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
    """Start a command whose output goes to two files; return its process id."""
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
        patch.object(device, "has_bf16", lambda _: False),  # as in tests/conftest.py
    ):
        serve()
