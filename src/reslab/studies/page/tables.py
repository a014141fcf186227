"""Build the tables of a page, and a CSV of its runs."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import mean

import torch

from reslab.detection.config import DetectorConfig
from reslab.detection.network import FasterRCNN
from reslab.models.complexity import complexity
from reslab.models.config import cifar_names, config_named
from reslab.runtime.events import Event
from reslab.runtime.text import printable
from reslab.studies.paper import table_6
from reslab.studies.records import NO_EFFECT, Classifiers, Detectors, Record, SeedGroup
from reslab.training.overrides import flatten
from reslab.training.recipe import Recipe

OWN_PARTS = {"deviations.net", "deviations.optimizer"}  # already part of a run's label
# Markdown's emphasis, code, cells, links and entities, and formulas; _ within a word is kept
MARKUP = re.compile(r"[\\`*~$|]|\](?=\()|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
MAX_LABEL_KEYS = 2  # maximum number of recipe keys in a label
RESULTS = ("train_error", "seconds", "weights_sha256")  # last columns of the CSV
ERROR_NOTE = (
    "Errors at the last iteration: best (mean ± standard deviation over n seeds). Training error "
    "is the mean over the last epoch, on augmented images. “Paper” is the test error in Table 6, "
    "after 64k iterations."
)
PRECISION_NOTE = (
    "Values at the last iteration: best (mean ± standard deviation over n seeds). Training error "
    "is the percentage of sampled regions that are misclassified, averaged over the last epoch."
)


@dataclass(frozen=True)
class Table:
    """A table on a page; the rows after the first `shown` are collapsed."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    shown: int = 50

    def markdown(self) -> str:
        """Return the header and all rows as Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "".join(f"| {' | '.join(map(markdown_text, line))} |\n" for line in lines)


def markdown_text(text: str) -> str:
    """Escape what Markdown would not show as it is, since names come from users."""
    return MARKUP.sub(lambda mark: f"\\{mark[0]}", printable(text)).replace("<", "&lt;")


def table_of(rows: Sequence[Mapping[str, str]], note: str = "") -> Table:
    """Build the main table of a page from rows that map columns to cells."""
    return Table("Table", list(rows[0]), [list(row.values()) for row in rows], note)


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def unique(labels: Sequence[str]) -> list[str]:
    """Append a number to labels that occur more than once."""
    return [
        label if labels.count(label) == 1 else f"{label} #{labels[: i + 1].count(label)}"
        for i, label in enumerate(labels)
    ]


def label_classifiers(groups: Sequence[Classifiers]) -> dict[str, Classifiers]:
    """Return the groups by their labels in tables and figures.

    Recipes with the same label are distinguished by their data sets if these differ, otherwise by
    the few keys that differ and their values, or else by a number.
    """
    labels = []
    for group in groups:
        fields = flatten(group.first.recipe.model_dump(mode="json"))
        rivals = [rival for rival in groups if rival.first.label == group.first.label]
        lines = [group.first.recipe.differences(rival.first.recipe) for rival in rivals]
        differing = {line.partition(":")[0] for line in chain.from_iterable(lines)}
        fields["data"] = group.first.data
        keys = ["data"]
        if not differing & {"data", "deviations.data"}:
            keys = sorted(differing - NO_EFFECT - OWN_PARTS)
        values = [f"{key}={fields.get(key)}" for key in keys if len(keys) <= MAX_LABEL_KEYS]
        labels.append(", ".join([group.first.label, *values]))
    return dict(zip(unique(labels), groups, strict=True))


def error_table(groups: Mapping[str, Classifiers]) -> Table:
    """Build a table with a row for each recipe: best (mean ± std) over its seeds."""
    rows = [
        {
            "network": label,
            "set": group.first.data,
            "layers": "–" if group.first.own_net else str(group.first.depth),
            "parameters": f"{classifier_parameters(group.first):,}",
            "test error (%)": str(group.test_error),
            "training error (%)": str(group.train_error),
            "paper (%)": paper_entry(group.first) or "–",
            "seconds per run": f"{group.seconds:,.0f}",
        }
        for label, group in groups.items()
    ]
    return table_of(rows, ERROR_NOTE)


def classifier_parameters(record: Record[Recipe]) -> int:
    """Return the number of parameters of a classifier."""
    if record.own_net:
        if "parameters" not in record.environment:
            file = record.path / "environment.json"
            raise ValueError(f"{file} is damaged: there is no 'parameters' in it")
        return record.environment["parameters"]
    return complexity(record.label, record.recipe.model).parameters


def paper_entry(record: Record[Recipe]) -> str:
    """Return the paper's test error for the same network and data set, or "" if there is none."""
    data, net, name = record.recipe.data, record.recipe.model, f"resnet{record.depth}"
    if record.own_net:
        return ""
    if data == "cifar10" and name in cifar_names() and net == config_named(name):
        return table_6(record.depth)
    return ""


def response_table(networks: Mapping[str, Mapping[str, float]]) -> Table:
    """Build a table of layer responses with a row for each network."""
    rows = []
    for label, layers in networks.items():
        stds = list(layers.values())
        numbers = {"mean std": mean(stds), "smallest": min(stds), "largest": max(stds)}
        cells = {name: f"{number:.3f}" for name, number in numbers.items()}
        rows.append({"network": label, "3×3 layers": str(len(stds)), **cells})
    return table_of(rows, "Over the 3×3 layers of each net after its last iteration.")


def responses_csv(networks: Mapping[str, Mapping[str, float]]) -> str:
    """Return a CSV with a line for each layer, unrounded."""
    rows = [
        {"network": label, "index": index, "layer": layer, "std": std}
        for label, layers in networks.items()
        for index, (layer, std) in enumerate(layers.items(), 1)
    ]
    return csv_text(rows)


def detector_tables(groups: Mapping[str, Detectors]) -> list[Table]:
    """Build the table of detectors, best (mean ± std) over the seeds, and the tables by class.

    Detectors with the same classes and numbers of boxes share a table by class, which holds means
    over their seeds.
    """
    rows = [
        {
            "detector": label,
            "set": group.first.test_set,
            "parameters": f"{parameters(group.first.recipe.model):,}",
            "mAP@.5 (%)": str(group.map_50),
            "mAP@[.5:.95] (%)": str(group.map_50_95 or "–"),
            "training error of regions (%)": str(group.train_error),
            "iterations": f"{group.first.recipe.iterations:,}",
            "seconds per run": f"{group.seconds:,.0f}",
        }
        for label, group in groups.items()
    ]
    families: dict[tuple[object, ...], list[tuple[str, Event]]] = {}
    for label, group in groups.items():
        report = group.mean_report()
        key = tuple((row["id"], row["class"], row["boxes"]) for row in report["per_class"])
        families.setdefault(key, []).append((label, report))
    titles = [f"By class: {entries[0][0]}" for entries in families.values()]
    if len(families) == 1:
        titles = ["By class"]
    return [table_of(rows, PRECISION_NOTE), *map(class_table, titles, families.values())]


def parameters(detector: DetectorConfig) -> int:
    """Count the parameters of a detector, including frozen ones."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in FasterRCNN(detector).parameters())


def class_table(title: str, entries: Sequence[tuple[str, Event]]) -> Table:
    """Build a table with rows for the mean and each class, and columns for each report."""
    classes = entries[0][1]["per_class"]
    columns = [["class", "mean", *(row["class"] for row in classes)]]
    columns.append(["boxes", *counts(classes, "boxes")])
    for name, report in entries:
        prefix = f"{name}: " if len(entries) > 1 else ""
        rows = report["per_class"]
        columns.append([f"{prefix}detections", *counts(rows, "detections")])
        values = [report["map_50"], *(row["ap_50"] for row in rows)]
        columns.append([f"{prefix}AP@.5", *map(one_decimal, values)])
        if report["map_50_95"] is not None:
            values = [report["map_50_95"], *(row.get("ap_50_95") for row in rows)]
            columns.append([f"{prefix}AP@[.5:.95]", *map(one_decimal, values)])
    header, *lines = zip(*columns, strict=True)
    note = "AP in percent. Classes without boxes are left out of the means."
    return Table(title, header, lines, note)


def counts(rows: Sequence[Event], key: str) -> list[str]:
    """Return the total over the classes, then the number for each class."""
    values = [round(row[key]) for row in rows]
    return [f"{value:,}" for value in (sum(values), *values)]


def one_decimal(value: float | None) -> str:
    """Format a percentage with one decimal, or a dash if it is undefined."""
    return "–" if value is None else f"{value:.1f}"


def runs_csv(groups: Mapping[str, SeedGroup]) -> str:
    """Return a CSV with a line for each run, unrounded."""
    rows = []
    for label, group in groups.items():
        for run in group.runs:
            recipe, seed = run.recipe, run.environment["seed"]
            if isinstance(recipe, Recipe):
                known = {"layers": run.depth, "shortcut": recipe.model.option or "none"}
                row = {"network": run.label} | (dict.fromkeys(known, "") if run.own_net else known)
                row |= {"data": run.data, "seed": seed}
                measured = {"test_error": run.report["top1_error"]}
            else:
                row = {"detector": label, "data": recipe.data, "seed": seed}
                row |= {"norm": recipe.model.norm, "weights": recipe.weights or "none"}
                measured = {key: run.report[key] for key in ("map_50", "map_50_95")}
            row |= {"iterations": run.result.get("iterations", ""), **measured}
            rows.append(row | {key: run.result.get(key, "") for key in RESULTS})
    return csv_text(rows)
