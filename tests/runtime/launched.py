"""Launch a script as several processes, and leave this process as it was.

    python launched.py LINES COUNT THREADS GRACE SCRIPT ...

What `launch` itself has to say is added to LINES, a file.
"""

import os
import signal
import sys

from reslab.runtime import launch as launching


def main(lines: str, count: str, threads: str, grace: str, *script: str) -> int:
    def log(line: str) -> None:
        with open(lines, "a") as file:
            file.write(f"{line}\n")

    launching.EXIT_GRACE = float(grace)
    status = launching.launch([sys.executable, *script], int(count), int(threads), log)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert "RANK" not in os.environ
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
