"""The figures of a set of runs as SVG text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reslab.analysis.responses import Response
from reslab.detection.average_precision.measure import COCO_NUMBERS, AveragePrecision
from reslab.runtime.files import atomic_write
from reslab.studies.page.page import Page, Table, html_page
from reslab.studies.page.tables import labels_of
from reslab.studies.records import Classifiers, Detectors
from reslab.training.curves import COLOURS, Curve, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SETTLED_FRACTION = 0.4  # of a run's length: what happens before may leave the figure at its top


def draw_errors(groups: Sequence[Classifiers]) -> str:
    """Training and test error over iterations, plain and residual side by side (Fig. 6).

    The panels share their error axis, so that heights can be compared.
    """
    from matplotlib.figure import Figure

    named = list(zip(groups, labels_of(groups), strict=True))
    panels = {
        "plain": [it for it in named if it[0].first.kind == "plain"],
        "residual": [it for it in named if it[0].first.kind != "plain"],
    }
    panels = {name: inside for name, inside in panels.items() if inside}
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, inside) in zip(all_axes, panels.items(), strict=True):
        for index, (group, label) in enumerate(inside):
            curve = Curve(label, group.curve_rows())
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(*curve.train(), color=colour, linewidth=0.9, alpha=0.85)
            axes.plot(*curve.watched(), color=colour, linewidth=2.4, label=curve.label)
        axes.set(xlabel="iteration", title=f"{name} nets")
        axes.grid(alpha=0.25)
        axes.set_xlim(left=0)
        axes.legend(
            title="bold: test, thin: training", frameon=False, loc="upper right",
            fontsize=9, title_fontsize=9,
        )  # fmt: skip
    all_axes[0].set_ylabel("error (%)")
    all_axes[0].set_ylim(0, highest_settled(groups))
    return svg_of(figure)


def draw_learning(groups: Sequence[Detectors], labels: Sequence[str]) -> str:
    """Of detectors: mAP@.5 over iterations at the left, training error of regions at the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    precision, error = figure.subplots(1, 2)
    for index, (group, label) in enumerate(zip(groups, labels, strict=True)):
        curve = Curve(label, group.curve_rows())
        colour = COLOURS[index % len(COLOURS)]
        precision.plot(*curve.watched(), color=colour, linewidth=2.4, marker=".", label=label)
        error.plot(*curve.train(), color=colour, linewidth=1.2, label=label)
    precision.set(xlabel="iteration", ylabel="mAP@.5 (%)", title="mAP@.5")
    error.set(xlabel="iteration", ylabel="error (%)", title="training error of regions")
    for axes in (precision, error):
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=9)
    return svg_of(figure)


def highest_settled(groups: Sequence[Classifiers]) -> float:
    """The top of the error axis: all that the runs do after their first part, percent."""
    highest = 5.0
    for group in groups:
        curve = Curve("", group.curve_rows())
        for iterations, errors in (curve.train(), curve.watched()):
            start = SETTLED_FRACTION * iterations[-1]
            settled = [e for i, e in zip(iterations, errors, strict=True) if i >= start]
            highest = max(highest, *settled)
    return min(100.0, 1.15 * highest)


def draw_responses(of_models: Mapping[str, Sequence[Response]]) -> str:
    """Standard deviations of the layer responses, in order above and sorted below (Fig. 7)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    in_order, by_size = figure.subplots(2, 1)
    for index, (label, responses) in enumerate(of_models.items()):
        colour = COLOURS[index % len(COLOURS)]
        dashes = "--" if label.startswith("plain") else "-"
        stds = [response.std for response in responses]
        layers = range(1, len(stds) + 1)
        in_order.plot(layers, stds, dashes, color=colour, label=label, linewidth=1.4)
        by_size.plot(layers, sorted(stds, reverse=True), dashes, color=colour, linewidth=1.4)
    in_order.set(ylabel="std", xlabel="layer index (original)", title="layer responses")
    by_size.set(ylabel="std", xlabel="layer index (sorted by magnitude)")
    for axes in (in_order, by_size):
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
    in_order.legend(frameon=False, ncols=2, fontsize=9)
    return svg_of(figure)


CAPTION = (
    "Precision over recall at IoU 0.5, interpolated: the highest precision at that recall or a "
    "higher one. Bold: the mean over the classes that have boxes."
)
NAMED_CURVES = 8  # classes at most that a colour can tell apart
ABREAST = 2  # panels
MANY = "#8a949e"  # grey, where there are more


def draw_precision(precision: AveragePrecision) -> str:
    """Precision over recall of each class and their mean, IoU 0.5, as SVG text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    draw_into(figure.add_subplot(), precision, precision.set_name)
    return svg_of(figure)


def draw_precisions(entries: Sequence[tuple[str, AveragePrecision]]) -> str:
    """The same of each entry, side by side."""
    from matplotlib.figure import Figure

    rows = -(-len(entries) // ABREAST)
    wide = min(len(entries), ABREAST)
    figure = Figure(figsize=(5.2 * wide, 4.2 * rows), layout="constrained")
    panels = figure.subplots(rows, wide, squeeze=False).flat
    for axes, (name, precision) in zip(panels, entries, strict=False):
        draw_into(axes, precision, name)
    for axes in list(panels)[len(entries) :]:
        axes.set_visible(False)
    return svg_of(figure)


def draw_into(axes: "Axes", precision: AveragePrecision, title: str) -> None:
    """One panel."""
    rows = zip(precision.per_class, precision.curves, strict=True)
    curves = {row["class"]: 100 * np.array(curve) for row, curve in rows if row["boxes"]}
    recalls = np.linspace(0, 100, len(precision.curves[0]))
    few = len(curves) <= NAMED_CURVES
    for index, (name, curve) in enumerate(curves.items()):
        colour, label = (COLOURS[index], escape_label(name)) if few else (MANY, None)
        alpha = 0.85 if few else 0.4
        axes.step(recalls, curve, color=colour, label=label, linewidth=0.9, alpha=alpha)
    mean, whole = np.mean(list(curves.values()), axis=0), f"mean of {len(curves)}"
    axes.step(recalls, mean, color="#1b1f24", label=whole, linewidth=2.4)
    axes.set(xlabel="recall (%)", ylabel="precision (%)", title=escape_label(title))
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 103)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower left", fontsize=9)


def escape_label(name: str) -> str:
    """A name as matplotlib shows it: a dollar begins no formula, a line hides no label."""
    return name.replace("$", r"\$").lstrip("_") or name


def write_precision(entries: Sequence[tuple[str, AveragePrecision]], out: Path) -> Path:
    """`report.html` of what was measured, each under its name; the page's path."""
    page = Page(
        title="Average precision",
        question="What is found, and what is missed?",
        findings=[line for name, row in entries for line in findings_of(name, row)],
        figures={
            f"precision{index}.svg": (draw_precision(row), f"{name}. {CAPTION}")
            for index, (name, row) in enumerate(entries)
        },
        tables=[by_class("Table", entries)],
    )
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "report.html", html_page(page).encode())
    return out / "report.html"


def by_class(title: str, entries: Sequence[tuple[str, AveragePrecision]]) -> Table:
    """All entries beside each other, of the same classes."""
    rows = [mean_row(entries), *precision_rows(entries)]
    note = "Percent. Classes without boxes are left out of the means."
    return Table(title, ("class", "boxes", *columns(entries)), rows, note)


def findings_of(name: str, precision: AveragePrecision) -> list[str]:
    """The numbers of one file of detections in words."""
    numbers = ", ".join(
        f"{what.upper().replace('_', ' ')} {one_decimal(precision.coco[what])}"
        for what in COCO_NUMBERS
        if precision.coco
    )
    return [f"{name}: {precision}", *([numbers] if numbers else [])]


def columns(entries: Sequence[tuple[str, AveragePrecision]]) -> list[str]:
    """Of the table, those of each entry."""
    several = len(entries) > 1
    return [
        f"{name}: {what}" if several else what
        for name, row in entries
        for what in ("detections", "AP@.5", *(["AP@[.5:.95]"] if row.coco else []))
    ]


def mean_row(entries: Sequence[tuple[str, AveragePrecision]]) -> list[str]:
    cells = ["mean", f"{sum(row['boxes'] for row in entries[0][1].per_class):,}"]
    for _, precision in entries:
        cells.append(f"{sum(row['detections'] for row in precision.per_class):,}")
        cells.append(one_decimal(precision.map_50))
        if precision.map_50_95 is not None:
            cells.append(one_decimal(precision.map_50_95))
    return cells


def precision_rows(entries: Sequence[tuple[str, AveragePrecision]]) -> list[list[str]]:
    """A row for each class, all entries beside each other."""
    lines = []
    for of_class in zip(*(precision.per_class for _, precision in entries), strict=True):
        cells = [of_class[0]["class"], f"{of_class[0]['boxes']:,}"]
        for row in of_class:
            cells.append(f"{row['detections']:,}")
            cells += [one_decimal(row[key]) for key in ("ap_50", "ap_50_95") if key in row]
        lines.append(cells)
    return lines


def one_decimal(value: float) -> str:
    """With one digit, as papers print it; a dash where there is nothing to be found."""
    return "–" if np.isnan(value) else f"{value:.1f}"
