"""The tables of a page, and a spreadsheet of its runs."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reslab.analysis.responses import Response
from reslab.detection.average_precision.measure import AveragePrecision
from reslab.detection.network import DetectorConfig, FasterRCNN
from reslab.models.complexity import complexity
from reslab.models.config import cifar_models
from reslab.studies.paper import table_6
from reslab.studies.records import CADENCE, Classifiers, Detectors, Record
from reslab.training.recipe import Recipe, flatten

MAX_LABEL_KEYS = 2  # keys that a label names
ERROR_NOTE = (
    "Errors of the last iteration: best (mean ± standard deviation over n seeds). Training error "
    "is the mean of the last epoch, on augmented images. “paper” is the test error of Table 6, "
    "trained for 64k iterations."
)
PRECISION_NOTE = (
    "Of the last iteration: best (mean ± standard deviation over n seeds). Training error is the "
    "share of sampled regions whose class is wrong, mean of the last epoch."
)


@dataclass(frozen=True)
class Table:
    """A table of a page, which folds the rows beyond `shown`."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    shown: int = 50

    def markdown(self) -> str:
        """The header and all rows as Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "".join(f"| {' | '.join(map(markdown_cell, line))} |\n" for line in lines)


def markdown_cell(text: str) -> str:
    """Escape what would end a cell or begin HTML: names come from anybody."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def unique(labels: Sequence[str]) -> list[str]:
    """Number the labels that several share."""
    return [
        label if labels.count(label) == 1 else f"{label} #{labels[: i + 1].count(label)}"
        for i, label in enumerate(labels)
    ]


def label_classifiers(groups: Sequence[Classifiers]) -> dict[str, Classifiers]:
    """Name each recipe as tables and figures do.

    Recipes of the same net are told apart by the set, else by one or two keys and their values.
    """
    labels = []
    for group in groups:
        fields = flatten(group.first.recipe.model_dump(mode="json"))
        rivals = [rival for rival in groups if rival.first.label == group.first.label]
        differing = {key for rival in rivals for key in differing_keys(group, rival)}
        keys = ["data"] if "data" in differing else sorted(differing - CADENCE)
        values = [f"{key}={fields.get(key)}" for key in keys if len(keys) <= MAX_LABEL_KEYS]
        labels.append(", ".join([group.first.label, *values]))
    return dict(zip(unique(labels), groups, strict=True))


def differing_keys(group: Classifiers, rival: Classifiers) -> list[str]:
    lines = group.first.recipe.differences(rival.first.recipe)
    return [line.partition(":")[0] for line in lines]


def error_table(groups: Mapping[str, Classifiers]) -> Table:
    """A row for each recipe: best (mean ± std) over its seeds."""
    header = (
        "network", "set", "layers", "parameters", "test error (%)", "training error (%)",
        "paper (%)", "seconds a run",
    )  # fmt: skip
    rows = [
        (
            label,
            group.first.recipe.data,
            str(group.first.depth),
            f"{complexity(group.first.label, group.first.recipe.model).parameters:,}",
            str(group.test_error),
            str(group.train_error),
            paper_entry(group.first) or "–",
            f"{group.seconds:,.0f}",
        )
        for label, group in groups.items()
    ]
    return Table("Table", header, rows, ERROR_NOTE)


def paper_entry(record: Record[Recipe]) -> str:
    """The paper's test error of the same net on the same images; empty where it prints none."""
    paper_net = cifar_models().get(f"resnet{record.depth}")
    if record.recipe.data == "cifar10" and record.recipe.model == paper_net:
        return table_6(record.depth)
    return ""


def classifiers_csv(groups: Mapping[str, Classifiers]) -> str:
    """A line for each run, nothing rounded."""
    header = (
        "network", "layers", "shortcut", "data", "seed", "iterations", "test_error",
        "train_error", "seconds", "weights_sha256",
    )  # fmt: skip
    rows = [
        (run.label, run.depth, run.recipe.model.shortcut or "none", run.recipe.data,
         run.environment["seed"], run.result["iterations"], run.report["top1_error"],
         run.train_error, run.result["seconds"], run.result["weights_sha256"])
        for group in groups.values()
        for run in group.runs
    ]  # fmt: skip
    return csv_text(header, rows)


def response_table(responses: Mapping[str, Sequence[Response]]) -> Table:
    """A row for each network."""
    header = ("network", "3×3 layers", "mean std", "smallest", "largest")
    rows = []
    for label, layers in responses.items():
        stds = [layer.std for layer in layers]
        numbers = (sum(stds) / len(stds), min(stds), max(stds))
        rows.append((label, str(len(stds)), *(f"{number:.3f}" for number in numbers)))
    note = "Over the 3×3 layers of each net, as trained, last iteration."
    return Table("Table", header, rows, note)


def responses_csv(responses: Mapping[str, Sequence[Response]]) -> str:
    """A line for each layer, nothing rounded."""
    rows = [
        (label, index, layer.layer, repr(layer.std))
        for label, layers in responses.items()
        for index, layer in enumerate(layers, 1)
    ]
    return csv_text(("network", "index", "layer", "std"), rows)


def precision_table(groups: Mapping[str, Detectors]) -> Table:
    """A row for each detector's recipe: best (mean ± std) over its seeds."""
    header = (
        "detector", "set", "parameters", "mAP@.5 (%)", "mAP@[.5:.95] (%)",
        "training error of regions (%)", "iterations", "seconds a run",
    )  # fmt: skip
    rows = [
        (
            label,
            group.first.test_set,
            f"{parameters(group.first.recipe.model):,}",
            str(group.map_50),
            str(group.map_50_95 or "–"),
            str(group.train_error),
            f"{group.first.recipe.iterations:,}",
            f"{group.seconds:,.0f}",
        )
        for label, group in groups.items()
    ]
    return Table("Table", header, rows, PRECISION_NOTE)


def parameters(detector: DetectorConfig) -> int:
    """Count the learnable numbers of a detector, with those that training keeps fixed."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in FasterRCNN(detector).parameters())


def class_tables(groups: Mapping[str, Detectors]) -> list[Table]:
    """A table for all detectors of the same classes and boxes, means over their seeds."""
    families: dict[tuple[object, ...], list[tuple[str, AveragePrecision]]] = {}
    for label, group in groups.items():
        precision = group.mean_precision()
        key = tuple((row["id"], row["class"], row["boxes"]) for row in precision.per_class)
        families.setdefault(key, []).append((label, precision))
    return [
        class_table("By class" if len(families) == 1 else f"By class: {entries[0][0]}", entries)
        for entries in families.values()
    ]


def class_table(title: str, entries: Sequence[tuple[str, AveragePrecision]]) -> Table:
    """A row for each class and for the mean; the entries, of the same classes, side by side."""
    classes = entries[0][1].per_class
    columns = [
        ["class", "mean", *(row["class"] for row in classes)],
        ["boxes", *counts([row["boxes"] for row in classes])],
    ]
    for name, precision in entries:
        prefix = f"{name}: " if len(entries) > 1 else ""
        rows = precision.per_class
        columns.append([f"{prefix}detections", *counts([row["detections"] for row in rows])])
        values = [precision.map_50, *(row["ap_50"] for row in rows)]
        columns.append([f"{prefix}AP@.5", *map(one_decimal, values)])
        if precision.map_50_95 is not None:
            values = [precision.map_50_95, *(row["ap_50_95"] for row in rows)]
            columns.append([f"{prefix}AP@[.5:.95]", *map(one_decimal, values)])
    header, *lines = zip(*columns, strict=True)
    note = "Percent. Classes without boxes are left out of the means."
    return Table(title, header, lines, note)


def counts(values: Sequence[int]) -> list[str]:
    """The sum, then each value."""
    return [f"{value:,}" for value in (sum(values), *values)]


def one_decimal(value: float) -> str:
    """Percent as papers print it; a dash where no object exists."""
    return "–" if np.isnan(value) else f"{value:.1f}"


def detectors_csv(groups: Mapping[str, Detectors]) -> str:
    """A line for each run, nothing rounded."""
    header = (
        "detector", "data", "seed", "norm", "weights", "iterations", "map_50", "map_50_95",
        "train_error", "seconds", "weights_sha256",
    )  # fmt: skip
    rows = [
        (label, run.recipe.data, run.environment["seed"], run.recipe.model.norm,
         run.recipe.weights or "none", run.result["iterations"], run.report["map_50"],
         run.report["map_50_95"], run.train_error, run.result["seconds"],
         run.result["weights_sha256"])
        for label, group in groups.items()
        for run in group.runs
    ]  # fmt: skip
    return csv_text(header, rows)
