"""`reslab evaluate`"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.api.display import progress_display
from reslab.api.lines import to_stderr, warn
from reslab.cli.console import (
    AsCsv,
    AsJson,
    Backend,
    ClassNames,
    Precision,
    Refine,
    Scales,
    csv_line,
    must_choose_one_form,
    parse_numbers,
    print_json,
    print_line,
    print_table,
)
from reslab.cli.predict import PROTOCOL_HELP

if TYPE_CHECKING:
    from reslab.api.results import Evaluations
    from reslab.detection.average_precision.measure import AveragePrecision


LISTED = 20  # up to this many classes are all listed
WORST = 10  # classes listed if there are more

Row = Mapping[str, Any]


def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="Run folders, model files, exported files, names, or .json files of detections.",
        ),
    ],
    on: Annotated[
        str | None, typer.Option(help="digits, cifar10 or digit-scenes; default: the model's own.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder with images by class, shards, CIFAR-10, or boxes in COCO, VOC or YOLO "
            "layout; or a URL of shards."
        ),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help=f"{PROTOCOL_HELP} For boxes: coco, voc-2007 or voc-2012.")
    ] = None,
    precision: Precision = "fp32",
    backend: Backend = "auto",
    keep_scores: Annotated[
        bool, typer.Option("--keep-scores", help="Store the scores of every view beside the model.")
    ] = False,
    classes: ClassNames = None,
    refine: Refine = False,
    scales: Scales = None,
    page: Annotated[
        Path | None,
        typer.Option("--report", metavar="DIR", help="Folder for a page on the mistakes."),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Evaluate trained models on a test set, each image exactly once.

    Reports several classifiers one by one and by their mean probabilities, several detectors one by
    one and as an ensemble (App. B). Reuses stored scores, computing only missing ones. Measures
    files of detections, in COCO's results format, against the boxes in --data. --csv has one row
    per class: precision, recall and F1, or for detectors average precision.
    """
    from reslab.api.evaluate import run_evaluation
    from reslab.api.results import must_not_be_a_file

    must_choose_one_form(as_json, as_csv)
    if page:
        must_not_be_a_file(page)
    with progress_display() as on_event:
        evaluations = run_evaluation(
            models, on=on, data=data, protocol=protocol, precision=precision, backend=backend,
            keep_scores=keep_scores, classes=classes, refine=refine,
            scales=parse_numbers("--scales", scales, "400,600,800"), on_event=on_event,
        )  # fmt: skip
    written = evaluations.write_page(page) if page else None  # before the output, which may be full
    print_form = print_as_json if as_json else print_as_csv if as_csv else print_evaluations
    print_form(evaluations)
    if written:
        to_stderr(f"report: {written}")


def print_evaluations(entries: "Evaluations") -> None:
    """Print each report, then the last report class by class."""
    from reslab.evaluation.report import Report

    for entry in entries:
        print_line(str(entry))
        if not isinstance(entry.report, Report):
            print_coco_numbers(entry.report)
    last = entries[-1].report
    if isinstance(last, Report):
        print_classes(
            last.per_class,
            {
                "n": lambda row: str(row["n"]),
                "precision": lambda row: percent(row["precision"]),
                "recall": lambda row: percent(row["recall"]),
                "F1": lambda row: percent(row["f1"]),
                "taken for": lambda row: ", ".join(f"{k} ({n})" for k, n in row["taken_for"]),
            },
            badness=lambda row: row["top1_error"],
        )
        if macro := last.macro():
            precision, recall, f1 = map(percent, macro.values())
            print_line(
                f"mean of the classes: precision {precision} %, recall {recall} %, F1 {f1} %"
            )
        return
    columns = {
        "boxes": lambda row: str(row["boxes"]),
        "detections": lambda row: str(row["detections"]),
        "AP@.5": lambda row: percent(row["ap_50"]),
    }
    if last.coco:
        columns["AP@[.5:.95]"] = lambda row: percent(row["ap_50_95"])
    present = [row for row in last.per_class if row["boxes"]]
    print_classes(present, columns, badness=lambda row: -row["ap_50"])


def print_as_json(entries: "Evaluations") -> None:
    print_json([entry.as_dict() for entry in entries])


def print_as_csv(entries: "Evaluations") -> None:
    """Print the numbers of every class as CSV, for one report after another."""
    columns: list[str] = []
    for entry in entries:
        if not entry.report.per_class:
            warn(f"{entry.title}: more than a thousand classes: no results by class")
        for row in entry.report.details()["per_class"]:
            cells = {"model": entry.title, "set": entry.report.as_dict()["set"]} | row
            cells.pop("taken_for", None)
            if not columns:
                columns = list(cells)
                print_line(csv_line(columns).rstrip("\n"))
            print_line(csv_line([cells[name] for name in columns]).rstrip("\n"))


def print_classes(
    rows: Sequence[Row],
    columns: Mapping[str, Callable[[Row], str]],
    badness: Callable[[Row], float],
) -> None:
    """Print a table of classes; if there are many, only the worst."""
    if not rows:
        return
    shown = rows
    if len(rows) > LISTED:
        shown = sorted(rows, key=badness, reverse=True)[:WORST]
    lines = [[row["class"], *(column(row) for column in columns.values())] for row in shown]
    print_table("class", *columns, rows=lines)
    if len(shown) < len(rows):
        print_line(f"the worst {len(shown)} of {len(rows)} classes; --json has all")


def print_coco_numbers(precision: "AveragePrecision") -> None:
    """Print COCO's twelve numbers, each with its conditions."""
    from reslab.detection.average_precision.measure import COCO_NUMBERS

    if not precision.coco:
        return
    rows = [
        [name[:2].upper(), iou, size, str(most), percent(precision.coco[name])]
        for name, (iou, size, most) in COCO_NUMBERS.items()
    ]
    print_table("", "IoU", "size", "detections", "%", rows=rows)


def percent(value: float | None) -> str:
    """Format a percentage with one decimal, or a dash if it is undefined."""
    return "–" if value is None or value != value else f"{value:.1f}"
