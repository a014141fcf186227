"""Measure reslab beside its peers on this machine, and print one table.

    python benchmarks/bench.py [SECTION ...]

Each section is a script and runs in its own process, for at most its time; a row is printed and
stored as soon as it is measured, in benchmarks/results/ and docs/performance.md; a run of some
sections only prints. If a peer is not installed, its row says so. With RESLAB_CPU=avx2 the machine
is measured as one without AVX-512.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from document import TITLES, Results, cells, this_machine, write_document
from rows import Row

HERE = Path(__file__).parent
# seconds after which a section is stopped, in order of importance
SECTIONS = {
    "start": 100,
    "training": 240,
    "resnet50": 240,
    "evaluation": 90,
    "loader": 90,
    "memory": 150,
    "detection": 90,
}
SECONDS = 720  # of the whole run
WIDTHS = (56, 15, 44, 9, 22, 42, 0)


def rows_of(section: str, seconds: float) -> Iterator[Row]:
    """Run a section for at most `seconds`, and yield its rows as they come.

    Print a line if it fails or takes too long.
    """
    command = [sys.executable, str(HERE / f"{section}.py")]
    late = threading.Event()
    with subprocess.Popen(  # in a group of its own, since a section starts processes too
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:

        def stop() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    yield Row.model_validate_json(line)
                else:  # a message
                    print(line, end="")
            process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:  # interrupted
                os.killpg(process.pid, signal.SIGKILL)
    if late.is_set():
        print(f"{section}: stopped after {seconds:.0f} s; this machine is slow or busy")
    elif process.returncode:
        print(f"{section}: failed, see above")


def aligned(texts: Iterable[str]) -> str:
    pairs = zip(texts, WIDTHS, strict=True)
    return "  ".join(text.ljust(width) for text, width in pairs).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"any of {', '.join(SECTIONS)}"
    )
    chosen = parser.parse_args().sections
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(
            f"unknown section {', '.join(sorted(unknown))}; the sections are {', '.join(SECTIONS)}"
        )
    machine = this_machine()
    print(f"{machine.processor}, {machine.kernels}; torch {machine.torch}; commit {machine.commit}")
    print(aligned(TITLES), flush=True)
    rows: list[Row] = []
    end = time.monotonic() + SECONDS
    for section in chosen or SECTIONS:
        seconds = min(SECTIONS[section], end - time.monotonic())
        if seconds <= 0:
            print(f"{section}: left out, the {SECONDS} s are over")
            continue
        for row in rows_of(section, seconds):
            rows.append(row)
            print(aligned(cells(row)), flush=True)
            if not chosen:
                Results(machine=machine, rows=tuple(rows)).write()
                write_document()


if __name__ == "__main__":
    main()
