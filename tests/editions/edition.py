"""One source tree whose command is run, and the folder in which its runs lie."""

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
PATIENCE = 120.0  # seconds until a run must have come to the point where it is stopped


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


class Edition:
    """Runs the command of the source tree `tree`; what it makes lies in `home`."""

    def __init__(self, tree: Path, home: Path, data: Path, first: Path) -> None:
        self.tree, self.home, self.data = tree.resolve(), home, data
        self.first = first  # the home of the first edition, this one perhaps
        for folder in (home / "runs", home / "printed"):
            folder.mkdir(parents=True, exist_ok=True)
        self.numbers = count()
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RESLAB_")
        } | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(self.tree / "src"),
            "RESLAB_CACHE": str(home / "cache"),
        }
        self.server: subprocess.Popen[str] | None = None  # started by the first command

    @property
    def places(self) -> dict[str, str]:
        """Paths that are this edition's own, and their names in what is compared."""
        named = {str(self.first): "HOME", str(self.home): "HOME"}
        return named | {str(self.data): "DATA", str(self.tree): "TREE"}

    def close(self) -> None:
        """End the server, if there is one."""
        if self.server:
            self.server.communicate()

    def serving(self) -> subprocess.Popen[str]:
        """The server, which is started for the first command."""
        if self.server is None:
            self.server = subprocess.Popen(
                [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env=self.environment,
            )  # fmt: skip
            self.must_be_this_tree()
        return self.server

    def must_be_this_tree(self) -> None:
        """Fail if an installed edition hides the one in the tree."""
        file = self.home / "printed" / "which.py"
        file.write_text("import reslab\nprint(reslab.__file__)\n")
        found = self.python(file).strip()
        assert found.startswith(f"{self.tree}{os.sep}"), f"{found} is not in {self.tree}"

    def start(
        self, words: Sequence[object], while_running: Callable[[int], None] | None = None
    ) -> Done:
        """Run `python WORDS` to its end; `while_running` is given its process's id."""
        number = next(self.numbers)
        out, err = (self.home / "printed" / f"{number}.{kind}" for kind in ("out", "err"))
        request = {
            "words": [str(word) for word in words], "environment": self.environment,
            "out": str(out), "err": str(err),
        }  # fmt: skip
        server = self.serving()
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
        """Standard output of `reslab WORDS`, which must end with `status`."""
        done = self.start(["-m", "reslab", *words])
        if done.status != status:
            said = " ".join(map(str, words))
            raise RuntimeError(f"reslab {said}\nended with {done.status}:\n{done.err[-2000:]}")
        return done.out

    def json(self, *words: object, status: int = 0) -> Any:
        """The JSON document of `reslab WORDS --json`."""
        return json.loads(self.command(*words, "--json", status=status))

    def python(self, file: Path, *words: object) -> str:
        """Standard output of a script that imports this edition."""
        done = self.start([file, *words])
        if done.status:
            raise RuntimeError(f"{file}\n{done.err[-2000:]}")
        return done.out

    def stopped(self, number: int, seen: Path, *words: object) -> int:
        """Send a run the signal `number` once the file `seen` is there; its exit status."""

        def send(process: int) -> None:
            end = time.monotonic() + PATIENCE
            while not seen.exists() and time.monotonic() < end:
                time.sleep(0.002)
            os.kill(process, number)

        done = self.start(["-m", "reslab", *words], send)
        expected = -number if number == signal.SIGKILL else 128 + number
        if done.status != expected:
            raise RuntimeError(f"a run to be stopped ended with {done.status}:\n{done.err[-2000:]}")
        return done.status
