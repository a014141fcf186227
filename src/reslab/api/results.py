"""Results of runs, studies, reports and evaluations, as values."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from reslab.detection.average_precision.measure import AveragePrecision
from reslab.evaluation.report import Report
from reslab.runtime.text import printable


@dataclass(frozen=True)
class RunResult:
    """The result of a finished run, from its result.json."""

    folder: Path
    iterations: int
    seconds: float  # of training, evaluations included
    train_error: float  # percent, over the last epoch of augmented mini-batches
    # on the held-out images, if there are any, and on the test set; empty if nothing was evaluated
    reports: tuple[Report | AveragePrecision, ...]
    weights_sha256: str
    state_sha256: str  # of weights and momentum
    document: dict[str, JsonValue] = field(repr=False)  # the content of result.json

    def __str__(self) -> str:
        return "\n".join(
            [
                *map(str, self.reports),
                f"training error {self.train_error:.2f} %  (last epoch, augmented)",
                f"{self.iterations} iterations in {self.seconds:.0f} s; see "
                f"{printable(str(self.folder))}/curves.svg",
            ]
        )

    def __repr__(self) -> str:
        measured = "".join(f"{report}, " for report in self.reports[-1:])
        return (
            f"RunResult({str(self.folder)!r}: {measured}training error {self.train_error:.2f} %, "
            f"{self.iterations} iterations in {self.seconds:.0f} s)"
        )

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the content of result.json."""
        return self.document


def run_result(folder: Path, document: dict[str, Any]) -> RunResult:
    """Return the result of the run in `folder`, given the content of its result.json."""
    return RunResult(
        folder=folder,
        iterations=document.get("iterations", 0),
        seconds=document["seconds"],
        train_error=document["train_error"],
        reports=tuple(map(report_from, document["evaluation"])),
        weights_sha256=document.get("weights_sha256", ""),
        state_sha256=document.get("state_sha256", ""),
        document=document,
    )


def report_from(row: Mapping[str, Any]) -> Report | AveragePrecision:
    """Return the report of a classifier or a detector, given its entry in result.json."""
    if "map_50" not in row:
        known = {field.name for field in fields(Report)}
        report = Report(**{key: value for key, value in row.items() if key in known})
        # JSON has null for the loss of a run that diverged
        return replace(report, loss=math.nan) if row["loss"] is None else report
    return AveragePrecision(
        set_name=row["set"],
        protocol=row["protocol"],
        n=row["n"],
        map_50=row["map_50"],
        map_50_95=row["map_50_95"],
        coco=none_to_nan(row.get("coco", {})),
        per_class=[none_to_nan(entry) for entry in row.get("per_class", ())],
    )


def none_to_nan(row: Mapping[str, Any]) -> Any:
    """Replace None, which JSON has for an undefined number, by NaN."""
    return {key: math.nan if value is None else value for key, value in row.items()}


@dataclass(frozen=True)
class ReportPage:
    """A page on finished runs, with its table and figures beside it."""

    path: Path  # report.html
    runs: tuple[RunResult, ...]

    @property
    def table(self) -> str:
        """The table of the runs, in Markdown."""
        return self.path.with_name("table.md").read_text("utf-8")

    def __repr__(self) -> str:
        count = len(self.runs)
        return f"ReportPage({str(self.path)!r}, {count} {'run' if count == 1 else 'runs'})"

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the page's path and the result of each run, for JSON."""
        runs: list[JsonValue] = [{"run": str(run.folder), **run.document} for run in self.runs]
        return {"report": str(self.path), "runs": runs}


@dataclass(frozen=True)
class Evaluation:
    """The report on one model, an ensemble, or a file of detections."""

    title: str
    subject: Mapping[str, str | list[str]] = field(repr=False)  # what was evaluated, for JSON
    report: Report | AveragePrecision

    def __str__(self) -> str:
        return f"{printable(self.title)}  {self.report}"

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the subject and the whole report, for JSON."""
        document: dict[str, Any] = {**self.subject}
        document |= self.report.as_dict() | self.report.details()
        if isinstance(self.report, Report):
            document["macro"] = self.report.macro()
        return document


@dataclass(frozen=True)
class Evaluations:
    """Evaluations on one set: one per model and, if there are several, one of their ensemble."""

    entries: tuple[Evaluation, ...]
    writer: Callable[[Path], Path] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Evaluation]:
        return iter(self.entries)

    def __getitem__(self, index: int) -> Evaluation:
        return self.entries[index]

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))

    def __repr__(self) -> str:
        return f"Evaluations({'; '.join(map(str, self.entries))})"

    def write_page(self, out: str | Path) -> Path:
        """Write a page into the folder `out`, and return its path.

        It shows the most confident mistakes of classifiers, or the curves of detectors.
        """
        must_not_be_a_file(out)
        return self.writer(Path(out))


def must_not_be_a_file(folder: str | Path) -> None:
    """Raise ValueError if `folder`, to be written into, is a file."""
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ValueError(f"{folder} is a file: name a folder")
