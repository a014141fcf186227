"""Fixtures for all tests: data that does not come with the project, and commands to run."""

import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.editions.sets import draw_cifar10

from reslab.cli import main
from reslab.kernels.build import Kernels, KernelsMissing, instructions_for, load_kernels
from reslab.runtime import device
from reslab.runtime.cpu import limit_kernels

limit_kernels()
# one thread per test process: several run in parallel, and results depend on the thread count
torch.set_num_threads(1)
# fp32 by default: bits and durations must not depend on whether the processor has bf16
device.has_bf16 = lambda device: False
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels for GPUs are imported


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights, which are not redistributed; skip without it."""
    path = Path(os.environ.get("RESLAB_SHARED", "../shared")).resolve() / "data"
    if not path.is_dir():
        pytest.skip(f"no real data at {path} (RESLAB_SHARED)")
    return path


@pytest.fixture(scope="session")
def real_cifar10(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the official cifar-10-batches-py/."""
    out = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, shared / "cifar10" / "unpack", out], check=True)
    return out


@pytest.fixture(scope="session")
def resnet18_file(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained weights of ResNet-18 under torchvision's names, as they are released."""
    out = tmp_path_factory.mktemp("resnet18") / "resnet18-imagenet.safetensors"
    with lzma.open(shared / "weights" / "resnet18-imagenet.safetensors.xz") as packed:
        out.write_bytes(packed.read())
    return out


@pytest.fixture(scope="session")
def random_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with CIFAR-10's binary layout and random images."""
    folder = tmp_path_factory.mktemp("random-cifar10")
    draw_cifar10(folder)
    return folder


@pytest.fixture(scope="session")
def compiled() -> None:
    """Compile the kernels, so that no test sees a line about it; nothing without a compiler."""
    with suppress(KernelsMissing):
        load_kernels(instructions_for("fp32"), print)


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    """The fp32 kernels for this processor; skip without a compiler."""
    try:
        return load_kernels(instructions_for("fp32"), print)
    except KernelsMissing as missing:
        pytest.skip(str(missing))


@dataclass(frozen=True)
class Started:
    """A command that runs in its own process."""

    process: int
    words: list[str]
    out: Path
    err: Path
    ask: Callable[[dict[str, int]], int]  # send a request to the server that started the process

    def runs(self) -> bool:
        return not self.ask({"ended": self.process})

    def send_signal(self, number: int) -> None:
        os.kill(self.process, number)

    def end(self) -> subprocess.CompletedProcess[str]:
        """Wait for the command to end."""
        status = self.ask({"wait": self.process})
        return subprocess.CompletedProcess(
            self.words, status, self.out.read_text(), self.err.read_text()
        )


Start = Callable[..., Started]
Reslab = Callable[..., subprocess.CompletedProcess[str]]
FORKS = Path(__file__).with_name("forks.py")


@pytest.fixture(scope="session")
def start_python(compiled: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start Python in its own process, as a user does, but with torch already imported.

    The arguments are those of `python`: a script or `-m reslab`, and what follows. The process has
    one thread.
    """
    one_thread = {"OMP_NUM_THREADS": "1"}
    home = tmp_path_factory.mktemp("printed")
    numbers = count()
    server = subprocess.Popen(
        [sys.executable, FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | one_thread,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    stdin, stdout = server.stdin, server.stdout

    def ask(request: dict[str, Any]) -> int:
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        return int(stdout.readline())

    def begin(*arguments: object, **environment: str) -> Started:
        number = next(numbers)
        out, err = home / f"{number}.out", home / f"{number}.err"
        words = [str(argument) for argument in arguments]
        process = ask(
            {
                "command": [sys.executable, *words],
                "environment": os.environ | one_thread | environment,
                "out": str(out),
                "err": str(err),
            }
        )
        return Started(process, words, out, err, ask)

    yield begin
    server.communicate()


@pytest.fixture(scope="session")
def start(start_python: Start) -> Start:
    """Start the command in its own process."""
    return lambda *arguments, **environment: start_python("-m", "reslab", *arguments, **environment)


@pytest.fixture(scope="session")
def reslab(start: Start) -> Reslab:
    """Run the command in its own process and wait for it."""
    return lambda *arguments, **environment: start(*arguments, **environment).end()


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command that must fail with one line on standard error, and return that line."""

    def run(*arguments: object, status: int = 2, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == status
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1), printed
        assert printed.err.startswith("reslab: ")
        return printed.err.removesuffix("\n")

    return run
