"""Waiting for another thread or process."""

import subprocess
import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], bool],
    process: subprocess.Popen[str] | None = None,
    *,
    seconds: float = 120.0,
) -> None:
    """Return once the condition holds; fail after `seconds`, or if the process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
