"""Runs of detectors to the folder that a person shows to a colleague."""

from collections.abc import Sequence
from pathlib import Path

import torch

from reslab.detection.average_precision.measure import AveragePrecision
from reslab.detection.network import FasterRCNN
from reslab.detection.recipe import DetectionRecipe
from reslab.studies.page.album import albums_of, final_detections
from reslab.studies.page.detection_findings import detector_findings, watched
from reslab.studies.page.figures import CAPTION, by_class, draw_learning, draw_precisions
from reslab.studies.page.page import Page, Table, markdown_table, write_page
from reslab.studies.page.tables import csv_text, unique
from reslab.studies.records import Detectors, Record, group_by_recipe
from reslab.training.recipe import Recipe

PRECISION_HEADER = (
    "detector", "set", "parameters", "mAP@.5 (%)", "mAP@[.5:.95] (%)",
    "training error of regions (%)", "iterations", "seconds a run",
)  # fmt: skip
NOTE = (
    "Of the last iteration: best (mean ± standard deviation over n seeds). Training error is the "
    "share of sampled regions whose class is wrong, mean of the last epoch."
)


def write_detectors(
    records: Sequence[Record[DetectionRecipe]],
    out: Path,
    title: str,
    question: str,
    trunks: Sequence[Record[Recipe]] = (),
) -> Path:
    """`report.html report.md table.md table.csv figures/` of finished runs; the page's path.

    `trunks` are the classifiers whose weights they started from, where those are known.
    """
    groups, classifiers = group_by_recipe(records), group_by_recipe(trunks)
    labels = unique([group.first.label for group in groups])
    known, reasons = final_detections(groups, labels)
    figures = {"learning.svg": (draw_learning(groups, labels), learning_caption(groups[0]))}
    if known:
        drawn = draw_precisions([(it.label, it.precision) for it in known])
        figures["precision.svg"] = (drawn, CAPTION)
    rows = detector_rows(groups, labels)
    page = Page(
        title=title,
        question=question,
        findings=[
            *detector_findings(groups, labels),
            *map(of_trunk, trunks),
            *(f"Without images and precision over recall: {reason}" for reason in reasons),
        ],
        figures=figures,
        tables=[Table("Table", PRECISION_HEADER, rows, NOTE), *class_tables(groups, labels)],
        albums=albums_of(known),
    )
    markdown = markdown_table([PRECISION_HEADER, ("---",) * len(PRECISION_HEADER), *rows]) + "\n"
    return write_page(
        page, [*groups, *classifiers], out, markdown, detectors_as_csv(groups, labels)
    )


def of_trunk(record: Record[Recipe]) -> str:
    """What the weights are that the trained trunks started from."""
    report = record.result["evaluation"][-1]
    return (
        f"The trained trunk's weights are those of {record.label}, trained on "
        f"{record.recipe.data} for {record.recipe.iterations:,} iterations in "
        f"{record.result['seconds']:.0f} s: test error {record.report['top1_error']:.2f} % "
        f"(n={report['n']:,} images). No digit of a test scene was shown in any training."
    )


def learning_caption(group: Detectors) -> str:
    return (
        f"Left: mAP@.5 over iterations, on {watched(group)} on the way; the last point is of all. "
        "Right: training error, the share of sampled regions whose class is wrong. The mean where "
        "there are several seeds."
    )


def parameters(record: Record[DetectionRecipe]) -> int:
    """Learnable numbers of a detector, those included that training keeps."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in FasterRCNN(record.recipe.model).parameters())


def detector_rows(groups: Sequence[Detectors], labels: Sequence[str]) -> list[tuple[str, ...]]:
    """A row a recipe: best (mean ± std) over its seeds."""
    return [
        (
            label,
            group.first.test_set,
            f"{parameters(group.first):,}",
            str(group.map_50),
            str(group.map_50_95 or "–"),
            str(group.train_error),
            f"{group.first.recipe.iterations:,}",
            f"{group.seconds:,.0f}",
        )
        for group, label in zip(groups, labels, strict=True)
    ]


def class_tables(groups: Sequence[Detectors], labels: Sequence[str]) -> list[Table]:
    """One for all detectors of the same classes and boxes, means over seeds."""
    families: dict[tuple[object, ...], list[tuple[str, AveragePrecision]]] = {}
    for group, label in zip(groups, labels, strict=True):
        precision = group.mean_precision()
        key = tuple((row["id"], row["class"], row["boxes"]) for row in precision.per_class)
        families.setdefault(key, []).append((label, precision))
    return [
        by_class("By class" if len(families) == 1 else f"By class: {entries[0][0]}", entries)
        for entries in families.values()
    ]


def detectors_as_csv(groups: Sequence[Detectors], labels: Sequence[str]) -> str:
    """One line a run, nothing rounded: for a spreadsheet."""
    header = (
        "detector", "data", "seed", "norm", "weights", "iterations", "map_50", "map_50_95",
        "train_error", "seconds", "weights_sha256",
    )  # fmt: skip
    rows = [
        (label, run.recipe.data, run.environment["seed"], run.recipe.model.norm,
         run.recipe.weights or "none", run.result["iterations"], run.report["map_50"],
         run.report["map_50_95"], run.train_error, run.result["seconds"],
         run.result["weights_sha256"])
        for group, label in zip(groups, labels, strict=True)
        for run in group.runs
    ]  # fmt: skip
    return csv_text(header, rows)
