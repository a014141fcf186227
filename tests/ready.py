"""Processes of the command in which everything is imported already.

A process that starts Python and torch for a command of a second costs several. This one imports all
that the command ever needs, computes nothing, and makes a copy of itself by fork for each command.
A request is a line of JSON on standard input: a command to start, answered by the id of its
process, or an id to wait for, answered by the exit status.
"""

import json
import os
import signal
import sys
import traceback

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
from reslab.cli import main

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
)

LIMIT = 300  # seconds; who takes longer hangs


def run(arguments: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """Never returns."""
    signal.alarm(LIMIT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may ignore it
    status = 1
    try:
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), number)
        os.environ.clear()
        os.environ |= environment
        sys.argv = ["reslab", *arguments]
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
        else:
            child = os.fork()
            if not child:
                run(**request)
            print(child, flush=True)
