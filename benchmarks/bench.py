"""Measure reslab beside its peers on this machine, and print one table.

    python benchmarks/bench.py [SECTION ...]

Each section is a script and runs in its own process, for at most its time; a row is printed and
stored as soon as it is measured. Peers that are not installed are left out, and said so. With
RESLAB_CPU=avx2 the machine is measured as one without AVX-512. A complete run writes the results to
benchmarks/results/ and docs/performance.md; a run of some sections only prints.
"""

import argparse
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from document import TITLES, Results, cells, this_machine, write_document
from rows import Row

# seconds after which a section is stopped; together about six minutes on two idle cores
SECTIONS = {
    "start": 90,
    "training": 150,
    "resnet50": 150,
    "evaluation": 90,
    "loader": 90,
    "detection": 90,
}
WIDTHS = (46, 15, 44, 9, 22, 25, 0)


def rows_of(section: str) -> Iterator[Row]:
    """Run a section and yield its rows as they come; print a line if it fails or takes too long."""
    command = [sys.executable, str(Path(__file__).with_name(f"{section}.py"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(SECTIONS[section], stop)
    timer.start()
    try:
        yield from (Row.model_validate_json(line) for line in process.stdout)
    finally:
        timer.cancel()
        process.kill()
    if process.wait() and late.is_set():
        print(f"{section}: stopped after {SECTIONS[section]} s; the machine is slow or busy")
    elif process.returncode:
        print(f"{section}: failed, see above")


def aligned(texts: Iterable[str]) -> str:
    pairs = zip(texts, WIDTHS, strict=True)
    return "  ".join(text.ljust(width) for text, width in pairs).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    chosen = parser.parse_args().sections
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"unknown section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    machine = this_machine()
    print(f"{machine.processor}, {machine.kernels}; torch {machine.torch}; commit {machine.commit}")
    print(aligned(TITLES), flush=True)
    rows: list[Row] = []
    for section in chosen or SECTIONS:
        for row in rows_of(section):
            rows.append(row)
            print(aligned(cells(row)), flush=True)
            if not chosen:
                Results(machine=machine, rows=tuple(rows)).write()
                write_document()


if __name__ == "__main__":
    main()
