"""A source tree whose command is run, and the folder that holds its runs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("server.py")
PATIENCE = 120.0  # seconds within which a run must reach the point at which it is stopped


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


class Edition:
    """Run the command of the source tree `tree`, with its output under `home`."""

    def __init__(self, tree: Path, home: Path, data: Path, first: Path) -> None:
        self.tree, self.home, self.data = tree.resolve(), home, data
        self.first = first  # the home of the first edition; equals `home` for that edition
        for folder in (home / "runs", home / "printed"):
            folder.mkdir(parents=True, exist_ok=True)
        self.numbers = count()
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RESLAB_")
        } | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(self.tree / "src"),
            "RESLAB_CACHE": str(home / "cache"),
            "CXX": "none",  # no kernels: PyTorch's bits are those of every edition
        }
        self.server: subprocess.Popen[str] | None = None  # started by the first command

    @property
    def places(self) -> dict[str, str]:
        """Map paths that differ between editions to the names that replace them in results."""
        named = {str(self.first): "HOME", str(self.home): "HOME"}
        return named | {str(self.data): "DATA", str(self.tree): "TREE"}

    def close(self) -> None:
        """Shut down the server if it was started."""
        if self.server:
            self.server.communicate()

    def running_server(self) -> subprocess.Popen[str]:
        """Return the server; start it for the first command."""
        if self.server is None:
            self.server = subprocess.Popen(
                [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env=self.environment,
            )  # fmt: skip
            self.must_be_this_tree()
        return self.server

    def must_be_this_tree(self) -> None:
        """Fail if an installed edition is imported instead of the one in the tree."""
        file = self.home / "printed" / "which.py"
        file.write_text("import reslab\nprint(reslab.__file__)\n")
        imported = self.python(file).strip()
        assert imported.startswith(f"{self.tree}{os.sep}"), f"{imported} is not in {self.tree}"

    def start(
        self, words: Sequence[object], while_running: Callable[[int], None] | None = None
    ) -> Done:
        """Run `python WORDS` and wait; call `while_running` with its process id meanwhile."""
        number = next(self.numbers)
        out, err = (self.home / "printed" / f"{number}.{kind}" for kind in ("out", "err"))
        request = {
            "words": [str(word) for word in words], "environment": self.environment,
            "out": str(out), "err": str(err),
        }  # fmt: skip
        server = self.running_server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        process = int(server.stdout.readline())
        if while_running:
            threading.Thread(target=while_running, args=(process,), daemon=True).start()
        status = int(server.stdout.readline())
        return Done(status, out.read_text(), err.read_text())

    def command(self, *words: object, status: int = 0) -> str:
        """Run `reslab WORDS`, which must exit with `status`; return its standard output."""
        done = self.start(["-m", "reslab", *words])
        if done.status != status:
            command = " ".join(map(str, words))
            raise RuntimeError(f"reslab {command}\nexited with {done.status}:\n{done.err[-2000:]}")
        return done.out

    def json(self, *words: object, status: int = 0) -> Any:
        """Run `reslab WORDS --json` and parse its output."""
        return json.loads(self.command(*words, "--json", status=status))

    def python(self, file: Path, *words: object) -> str:
        """Run a script that imports this edition; return its standard output."""
        done = self.start([file, *words])
        if done.status:
            raise RuntimeError(f"{file}\n{done.err[-2000:]}")
        return done.out

    def stopped(self, number: int, seen: Path, *words: object) -> int:
        """Send a run the signal `number` once the file `seen` exists; return its exit status."""

        def send(process: int) -> None:
            deadline = time.monotonic() + PATIENCE
            while not seen.exists() and time.monotonic() < deadline:
                time.sleep(0.002)
            os.kill(process, number)

        done = self.start(["-m", "reslab", *words], send)
        expected = -number if number == signal.SIGKILL else 128 + number
        if done.status != expected:
            raise RuntimeError(
                f"a run that was to be stopped exited with {done.status}:\n{done.err[-2000:]}"
            )
        return done.status
