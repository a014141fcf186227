"""Plot the figures of a page; each function returns SVG text."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from reslab.detection.average_precision.measure import AveragePrecision
from reslab.studies.records import Classifiers, Detectors
from reslab.training.curves import COLOURS, Curve, legend_label, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (5.2, 4.2)  # inches
SETTLED_FRACTION = 0.4  # of a run's iterations; earlier errors may exceed the axis
NAMED_CURVES = 8  # number of classes up to which each has its own colour
ABREAST = 2  # panels side by side
GREY = "#8a949e"  # colour of every class if there are more than NAMED_CURVES


def panels(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> "tuple[Figure, list[Axes]]":
    """Return a figure, `width` by `height` inches, and its panels row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def frame(axes: "Axes", xlabel: str, ylabel: str = "", title: str = "") -> None:
    """Label the axes, start both at 0 and add a grid."""
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)


def draw_errors(groups: Mapping[str, Classifiers]) -> str:
    """Plot training and test error over iterations, in one panel per kind of network (Fig. 6).

    The kinds are plain nets, residual nets and networks of the user's own. The panels share their
    error axis, so that they can be compared.
    """
    plain = {label: group for label, group in groups.items() if group.first.kind == "plain"}
    own = {label: group for label, group in groups.items() if group.first.own_net}
    residual = {label: group for label, group in groups.items() if label not in plain | own}
    kinds = {"plain nets": plain, "residual nets": residual, "other nets": own}
    shown = {kind: members for kind, members in kinds.items() if members}
    figure, all_axes = panels(1, len(shown), PANEL[0] * len(shown), PANEL[1], sharey=True)
    for axes, (kind, members) in zip(all_axes, shown.items(), strict=True):
        for colour, (label, group) in zip(cycle(COLOURS), members.items(), strict=False):
            curve = Curve(label, group.curve_rows())
            axes.plot(*curve.train(), color=colour, linewidth=0.9, alpha=0.85)
            axes.plot(*curve.watched(), color=colour, linewidth=2.4, label=legend_label(label))
        frame(axes, "iteration", title=kind)
        axes.legend(
            title="bold: test, thin: training", frameon=False, loc="upper right",
            fontsize=9, title_fontsize=9,
        )  # fmt: skip
    all_axes[0].set_ylabel("error (%)")
    all_axes[0].set_ylim(top=highest_settled(list(groups.values())))
    return svg_of(figure)


def highest_settled(groups: Sequence[Classifiers]) -> float:
    """Return the upper end of the error axis in percent; only early errors may exceed it."""
    highest = 5.0
    for group in groups:
        curve = Curve("", group.curve_rows())
        for iterations, errors in (curve.train(), curve.watched()):
            if not iterations:  # the seeds have no evaluation in common
                continue
            start = SETTLED_FRACTION * iterations[-1]
            settled = [e for i, e in zip(iterations, errors, strict=True) if i >= start]
            highest = max(highest, *settled)
    return min(100.0, 1.15 * highest)


def draw_learning(groups: Mapping[str, Detectors]) -> str:
    """Plot the mAP@.5 of detectors over iterations, and beside it the training error of regions."""
    figure, (precision, error) = panels(1, 2, 2 * PANEL[0], PANEL[1])
    for colour, (label, group) in zip(cycle(COLOURS), groups.items(), strict=False):
        curve = Curve(label, group.curve_rows())
        precision.plot(
            *curve.watched(), color=colour, linewidth=2.4, marker=".", label=legend_label(label)
        )
        error.plot(*curve.train(), color=colour, linewidth=1.2, label=legend_label(label))
    frame(precision, "iteration", "mAP@.5 (%)", "mAP@.5")
    frame(error, "iteration", "error (%)", "training error of regions")
    for axes in (precision, error):
        axes.legend(frameon=False, fontsize=9)
    return svg_of(figure)


def draw_responses(networks: Mapping[str, Mapping[str, float]]) -> str:
    """Plot the standard deviations of layer responses, by layer above, sorted below (Fig. 7)."""
    figure, (in_order, by_size) = panels(2, 1, 7.2, 6.4)
    for colour, (label, deviations) in zip(cycle(COLOURS), networks.items(), strict=False):
        dashes = "--" if label.startswith("plain") else "-"
        stds = list(deviations.values())
        layers = range(1, len(stds) + 1)
        shown = legend_label(label)
        in_order.plot(layers, stds, dashes, color=colour, label=shown, linewidth=1.4)
        by_size.plot(layers, sorted(stds, reverse=True), dashes, color=colour, linewidth=1.4)
    frame(in_order, "layer index (original)", "std", "layer responses")
    frame(by_size, "layer index (sorted by magnitude)", "std")
    in_order.legend(frameon=False, ncols=2, fontsize=9)
    return svg_of(figure)


def draw_precisions(
    entries: Sequence[tuple[str, AveragePrecision]], width: float = PANEL[0]
) -> str:
    """Plot precision over recall at IoU 0.5, in one panel of `width` inches per entry."""
    columns = min(len(entries), ABREAST)
    rows = -(-len(entries) // columns)
    figure, all_axes = panels(rows, columns, columns * width, rows * PANEL[1])
    for axes, (title, precision) in zip(all_axes, entries, strict=False):
        draw_precision(axes, precision, title)
    for axes in all_axes[len(entries) :]:
        axes.set_visible(False)
    return svg_of(figure)


def draw_precision(axes: "Axes", precision: AveragePrecision, title: str) -> None:
    """Plot the curve of each class and the mean of the curves."""
    rows = zip(precision.per_class, precision.curves, strict=True)
    curves = {row["class"]: 100 * np.array(curve) for row, curve in rows if row["boxes"]}
    recalls = np.linspace(0, 100, len(precision.curves[0]))
    few = len(curves) <= NAMED_CURVES
    for index, (name, curve) in enumerate(curves.items()):
        colour, label = (COLOURS[index], legend_label(name)) if few else (GREY, None)
        alpha = 0.85 if few else 0.4
        axes.step(recalls, curve, color=colour, label=label, linewidth=0.9, alpha=alpha)
    mean, label = np.mean(list(curves.values()), axis=0), f"mean of {len(curves)}"
    axes.step(recalls, mean, color="#1b1f24", label=label, linewidth=2.4)
    frame(axes, "recall (%)", "precision (%)", title)
    axes.set_xlim(right=100)
    axes.set_ylim(top=103)
    axes.legend(frameon=False, loc="lower left", fontsize=9)
