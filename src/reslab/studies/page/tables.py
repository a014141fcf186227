"""The table of a set of runs, as Markdown and CSV."""

import csv
import io
from collections.abc import Sequence

from reslab.models.complexity import complexity
from reslab.models.config import cifar_models
from reslab.studies.paper import table_6
from reslab.studies.records import (
    CADENCE,
    Classifiers,
    Record,
)
from reslab.training.recipe import Recipe, flatten

MAX_LABEL_KEYS = 2  # keys that a label names

ERROR_HEADER = (
    "network", "set", "layers", "parameters", "test error (%)", "training error (%)", "paper (%)",
    "seconds a run",
)  # fmt: skip


def paper_entry(record: Record[Recipe]) -> str:
    """The paper's test error for the same net on the same images, if it prints one."""
    named = cifar_models().get(f"resnet{record.depth}")
    if record.recipe.data == "cifar10" and record.recipe.model == named:
        return table_6(record.depth)
    return ""


def error_rows(groups: Sequence[Classifiers]) -> list[tuple[str, ...]]:
    """A row a recipe: best (mean ± std) over its seeds."""
    return [
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
        for group, label in zip(groups, labels_of(groups), strict=True)
    ]


def as_markdown(groups: Sequence[Classifiers]) -> str:
    """The table in Markdown."""
    lines = [ERROR_HEADER, ("---",) * len(ERROR_HEADER), *error_rows(groups)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def runs_as_csv(groups: Sequence[Classifiers]) -> str:
    """One line a run, nothing rounded: for a spreadsheet."""
    header = (
        "network", "layers", "shortcut", "data", "seed", "iterations", "test_error",
        "train_error", "seconds", "weights_sha256",
    )  # fmt: skip
    rows = [
        (run.label, run.depth, run.recipe.model.shortcut or "none", run.recipe.data,
         run.environment["seed"], run.result["iterations"], run.report["top1_error"],
         run.train_error, run.result["seconds"], run.result["weights_sha256"])
        for group in groups
        for run in group.runs
    ]  # fmt: skip
    return csv_text(header, rows)


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def labels_of(groups: Sequence[Classifiers]) -> list[str]:
    """What tables and figures call each recipe; where two train the same net, what sets them
    apart: the set, else one or two keys with their values."""
    labels = []
    for group in groups:
        own = flatten(group.first.recipe.model_dump(mode="json"))
        others = [it.first.recipe for it in groups if it.first.label == group.first.label]
        differing = {key for other in others for key in keys_of(group.first.recipe, other)}
        telling = ["data"] if "data" in differing else sorted(differing - CADENCE)
        values = [f"{key}={own.get(key)}" for key in telling if len(telling) <= MAX_LABEL_KEYS]
        labels.append(", ".join([group.first.label, *values]))
    return unique(labels)


def keys_of(recipe: Recipe, other: Recipe) -> list[str]:
    """Those in which two recipes differ."""
    return [line.partition(":")[0] for line in recipe.differences(other)]


def unique(labels: Sequence[str]) -> list[str]:
    """Labels made different by a number where two runs share one."""
    return [
        label if labels.count(label) == 1 else f"{label} #{labels[: i + 1].count(label)}"
        for i, label in enumerate(labels)
    ]
