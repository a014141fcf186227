"""Run commands of one edition, each in a process forked from one that has torch imported.

A process that starts Python and torch for a command of a second costs several. This one imports
what the command needs of others and nothing of reslab, so a copy of it runs any edition. A request
is a line of JSON on standard input; the answers are two lines, the process's id and its exit
status.
"""

import json
import os
import runpy
import signal
import sys
import traceback

import jinja2
import matplotlib.figure
import PIL.Image
import pydantic
import rich.console
import safetensors.torch
import simplejpeg
import sklearn.datasets
import torch._dynamo
import typer

IMPORTED = (
    jinja2,
    matplotlib.figure,
    PIL.Image,
    pydantic,
    rich.console,
    safetensors.torch,
    simplejpeg,
    sklearn.datasets,
    torch._dynamo,
    typer,
)
LIMIT = 300  # seconds; who takes longer hangs


def run(words: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """Run `python WORDS` here and end; the words are `-m MODULE ...` or `FILE ...`."""
    signal.alarm(LIMIT)
    status = 1
    try:
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.environ.clear()
        os.environ |= environment
        sys.path[0] = environment["PYTHONPATH"]  # before an installed edition
        if words[0] == "-m":
            sys.argv = [words[1], *words[2:]]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
