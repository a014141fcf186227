"""The figures of a set of runs as SVG text."""

from collections.abc import Mapping, Sequence

from reslab.study.detection import Detectors
from reslab.study.records import Classifiers
from reslab.study.responses import Response
from reslab.study.tables import labels_of
from reslab.train.curves import COLOURS, Curve, svg_of

SETTLED = 0.4  # of a run's length: what happens before may leave the figure at its top


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
            start = SETTLED * iterations[-1]
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
