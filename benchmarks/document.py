"""What `bench.py` stores of a machine, and the part of docs/performance.md written from it."""

import platform
import subprocess
from datetime import date
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from reslab.runtime.cpu import kernel_limit
from reslab.runtime.device import setup_device
from reslab.training.train import processor
from rows import Row

ROOT = Path(__file__).parents[1]
RESULTS, DOCUMENT = ROOT / "benchmarks" / "results", ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- begin: written by benchmarks/bench.py -->", "<!-- end -->"
TITLES = (
    "measured",
    "reslab",
    "peer",
    "its value",
    "ratio (range, rounds)",
    "reslab's path",
    "check",
)


class Machine(BaseModel):
    """The machine and the software that were measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str  # with the number of usable cores
    kernels: str  # "AVX512 with bf16"
    torch: str
    python: str
    commit: str
    date: str

    def file(self) -> Path:
        """Return the file in which results of this processor and instruction set are stored."""
        words = f"{self.processor} {self.kernels}".lower()
        name = "".join(sign if sign.isalnum() else " " for sign in words)
        return RESULTS / ("-".join(name.split()) + ".json")


class Results(BaseModel):
    """All rows measured on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: Machine
    rows: tuple[Row, ...]

    def write(self) -> None:
        file = self.machine.file()
        file.parent.mkdir(exist_ok=True)
        file.write_text(self.model_dump_json(indent=1) + "\n")


def this_machine() -> Machine:
    device = setup_device()
    kernels = torch.backends.cpu.get_cpu_capability()
    kernels += " with bf16" if device.precision == "bf16" else ""
    return Machine(
        processor=processor().partition(", kernels")[0],
        kernels=kernels + (" (RESLAB_CPU)" if kernel_limit() else ""),
        torch=torch.__version__, python=platform.python_version(), commit=commit(),
        date=str(date.today()),
    )  # fmt: skip


def commit() -> str:
    """Return the commit, with `+` appended if the package or the benchmarks differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "src", "benchmarks/*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # not a clone


def cells(row: Row) -> list[str]:
    """Return the row's text under each of `TITLES`."""
    ratio = ""
    if row.ratio is not None and row.ratio_range is not None:
        low, high = row.ratio_range
        spread = f"{low:.2f} to {high:.2f}, {row.rounds}" if row.rounds > 1 else "once"
        ratio = f"{row.ratio:.2f} ({spread})"
    other = "" if row.other is None else f"{row.other:,.4g}"
    return [row.what, f"{row.reslab:,.4g} {row.unit}", row.peer, other, ratio, row.path, row.check]


def section(results: Results) -> str:
    """Return the section of one machine, in Markdown."""
    machine = results.machine
    lines = [
        f"### {machine.processor}, {machine.kernels}",
        "",
        f"torch {machine.torch}, Python {machine.python}, commit {machine.commit}, {machine.date}.",
        "",
        *(f"| {' | '.join(line)} |" for line in [TITLES, ["---"] * len(TITLES)]),
        *(f"| {' | '.join(cells(row))} |" for row in results.rows),
    ]
    return "\n".join(lines)


def written_part(folder: Path) -> str:
    """Return the sections of all machines whose results are in a folder, by name."""
    stored = [
        Results.model_validate_json(file.read_bytes()) for file in sorted(folder.glob("*.json"))
    ]
    return "\n\n".join(section(results) for results in stored)


def with_part(document: str, part: str) -> str:
    """Replace the text between the marks of a document."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{part}\n\n{END}{after}"


def write_document() -> None:
    DOCUMENT.write_text(with_part(DOCUMENT.read_text(), written_part(RESULTS)))
