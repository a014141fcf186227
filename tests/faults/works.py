"""Commands that write to disk, run in forks, and the files that they must leave.

Each `Work` starts in a folder with its inputs (images, runs) and is run there, so that all paths
are relative and its files have the same bytes wherever that folder is.
"""

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.training.walls import TINY, draw

from reslab import train
from reslab.cli import main
from reslab.recipes import any_recipe, recipe
from reslab.training.run import Interrupted

LIMIT = 120.0  # seconds after which a process counts as hanging
SHORT = [
    "iterations=9", "warmup=null", "eval_every=4", "checkpoint_every=2", "recompute_bn=1",
    "batch_size=16", "model.blocks=[1, 1, 1]", "precision=fp32", "log_every=2",
]  # fmt: skip
PHOTOS = [*TINY, "precision=fp32", "log_every=2"]


@dataclass(frozen=True)
class Work:
    """A command, and the folders of the template in which it is started."""

    name: str
    arguments: list[str]
    inputs: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()  # inputs in which the command writes nothing


def sets(changes: list[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


DIGITS = ["train", "digits-resnet20", *sets(SHORT), "--out"]
OWN = ["train", "own-resnet18", "--data", "photos", *sets(PHOTOS), "--out", "own"]
WORKS = {
    work.name: work
    for work in (
        Work("train", [*DIGITS, "run"]),
        Work("resume", ["resume", "stopped"], ("stopped",)),
        Work("train on images", OWN, ("photos",), ("photos",)),
        Work(
            "evaluate",
            ["evaluate", "finished", "--on", "digits", "--keep-scores", "--report", "page"],
            ("finished",),
        ),
        Work(
            "evaluate on images",
            ["evaluate", "tuned", "--data", "photos", "--keep-scores", "--protocol", "ten-crop"],
            ("tuned", "photos"),
            ("photos",),
        ),
        Work(
            "pack",
            ["pack", "photos", "packed", "--shorter-side", "100"],
            ("photos",),
            ("photos",),
        ),
        Work("report", ["report", "finished", "--out", "page"], ("finished",), ("finished",)),
    )
}


def prepare(template: Path, works: Iterable[Work]) -> Path:
    """Fill a folder with the inputs of the works: images, and runs finished and stopped."""
    wanted = {name for work in works for name in work.inputs}
    template.mkdir(parents=True)
    photos = draw(template / "photos", {"brick": 8, "sky": 8})
    digits = recipe("digits-resnet20").with_changes(SHORT)
    if "finished" in wanted:
        train(digits, template / "finished", on_event=None)
    if "stopped" in wanted:
        asked = iter(range(100))
        with suppress(Interrupted):
            train(digits, template / "stopped", on_event=None, stop=lambda: 15 * (next(asked) > 5))
    if "tuned" in wanted:
        own = any_recipe("own-resnet18", data=str(photos)).with_changes(PHOTOS)
        train(own, template / "tuned", data=photos, on_event=None)
    return template


def begin(template: Path, home: Path, work: Work) -> Path:
    """Make the folder in which a work is started."""
    home.mkdir(parents=True)
    for name in work.inputs:
        shutil.copytree(template / name, home / name)
    return home


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, or minus the signal that ended it."""

    status: int
    out: str
    err: str


def start(
    home: Path,
    work: Work,
    context: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> int:
    """Start a work in a fork of this process, inside a context; return the id of the fork."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.chdir(home)
            for handle, name in ((1, "out"), (2, "err")):
                file = os.open(beside(home, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, handle)
            with context():
                status = main(work.arguments)
        finally:
            os._exit(status)
    return process


def beside(home: Path, name: str) -> Path:
    return home.with_name(f"{home.name}.{name}")


def end(home: Path, process: int) -> Ended:
    """Wait for a process; raise AssertionError if it hangs."""
    limit = time.monotonic() + LIMIT
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            texts = [beside(home, name).read_text() for name in ("out", "err")]
            return Ended(os.waitstatus_to_exitcode(status), *texts)
        if time.monotonic() > limit:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise AssertionError(f"{home}: the process hangs")
        time.sleep(0.005)


def run(
    home: Path, work: Work, context: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Ended:
    return end(home, start(home, work, context))


def files(home: Path, *, checkpoints: bool = True) -> dict[str, str]:
    """Return a digest of each file, without times; `.lock` and empty folders are left out.

    Without `checkpoints`, those are left out: a run may finish although one was not written.
    """
    return {
        str(path.relative_to(home)): digest(path)
        for path in sorted(home.rglob("*"))
        if path.is_file() and path.name != ".lock"
        if checkpoints or path.parent.name != "checkpoints"
    }


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, without times and without this folder's path."""
    data = path.read_bytes()
    if path.parent.name == "checkpoints":  # it has the seconds so far
        return ""
    if path.name == "metrics.jsonl":
        lines = data.splitlines(keepends=True)
        rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
        data = json.dumps([without_times(row) for row in rows]).encode()
    elif path.name in ("result.json", "environment.json"):
        data = json.dumps(without_times(json.loads(data))).encode()
    return hashlib.sha256(data).hexdigest()


def without_times(row: dict[str, object]) -> dict[str, object]:
    """Return a row without the keys whose values depend on the clock or on the folder."""
    left_out = ("seconds", "images_per_second", "command", "data", "weights")
    return {key: value for key, value in row.items() if key not in left_out}
