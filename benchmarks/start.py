"""Measure how long commands take to start, beside `import torch`, which most of them need.

python benchmarks/start.py
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from PIL import Image

from reslab.data.digits import load_digits
from reslab.runtime.device import setup_device
from rows import Row, alternate, compare, path_of, print_rows, seconds_of

PEER = "import torch"
# the commands read compiled bytecode, as they do on a user's machine
ENVIRONMENT = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
TRAINING = ("train", "digits-resnet20", "--set", "log_every=1")


def python(*arguments: str) -> None:
    """Run a command of Python to its end; a failure raises CalledProcessError."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=ENVIRONMENT)


def reslab(*arguments: str) -> None:
    python("-m", "reslab", *arguments)


def until_first_iteration(folder: Path) -> None:
    """Start a training run, and stop it when it prints the line of its first iteration."""
    out = folder / f"run{sum(1 for _ in folder.iterdir())}"
    command = [sys.executable, "-m", "reslab", *TRAINING, "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stderr is not None
    notes = "reslab: "  # begins a line such as the choice of an engine
    lines = iter(process.stderr.readline, "")
    line = next((line for line in lines if not line.startswith(notes)), "")
    process.kill()
    process.communicate()
    if not line.startswith("iteration 1/"):
        raise RuntimeError(f"no first iteration, but: {line}")


def example(folder: Path) -> tuple[str, str]:
    """Return a run folder, trained for one iteration, and an image, both made in `folder`."""
    run, image = str(folder / "example"), str(folder / "digit.png")
    reslab(*TRAINING, "--set", "iterations=1", "--set", "recompute_bn=1", "--out", run)
    Image.fromarray(load_digits().test.images[0].permute(1, 2, 0).numpy()).save(image)
    return run, image


def rows() -> Iterator[Row]:
    path = path_of(setup_device())
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run, image = example(folder)
        work = {
            "reslab --help": partial(reslab, "--help"),
            "reslab models": partial(reslab, "models"),
            "reslab recipes": partial(reslab, "recipes"),
            "reslab predict, one image": partial(reslab, "predict", run, image),
            "first iteration of digits-resnet20": partial(until_first_iteration, folder),
            PEER: partial(python, "-c", PEER),
        }
        turns = {name: partial(seconds_of, turn) for name, turn in work.items()}
        values = alternate(turns, seconds=50)
    theirs = values.pop(PEER)
    for name, ours in values.items():
        longer = median(a - b for a, b in zip(ours, theirs, strict=True))
        yield compare(
            f"start: {name}", "s", reslab=ours, peer=PEER, other=theirs, path=path,
            check=f"{longer:+.2f} s",
        )  # fmt: skip


if __name__ == "__main__":
    print_rows(rows())
