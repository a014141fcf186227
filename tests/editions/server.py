"""Run the commands of one edition, each in a fork of a process that has imported torch.

Starting Python and torch takes seconds, for commands that take one. This process imports the
libraries that a command needs and nothing of reslab, so its forks can run any edition. A request is
a line of JSON on standard input; the reply is two lines, the process id and the exit status.
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
LIMIT = 300  # seconds after which a command counts as hanging


def run(words: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """Run `python WORDS` in this process and exit; WORDS are `-m MODULE ...` or `FILE ...`."""
    signal.alarm(LIMIT)
    status = 1
    try:
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.environ.clear()
        os.environ |= environment
        sys.path[0] = environment["PYTHONPATH"]  # ahead of an installed edition
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
