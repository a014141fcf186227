"""metrics.jsonl to curves in the paper's style: training error thin, test error bold (Fig. 6)."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
# Okabe and Ito's colours, which most colour-blind readers can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


@dataclass(frozen=True)
class Curve:
    """The errors of one run over its iterations, percent."""

    label: str
    rows: Sequence[Row]

    def train(self, bins: int = 120) -> tuple[list[float], list[float]]:
        """Iterations and training error, averaged over `bins` stretches so that a line is seen."""
        points = [(r["iteration"], r["train_error"]) for r in self.rows if r["kind"] == "train"]
        size = max(1, -(-len(points) // bins))
        stretches = [points[i : i + size] for i in range(0, len(points), size)]
        return (
            [sum(x for x, _ in part) / len(part) for part in stretches],
            [sum(y for _, y in part) / len(part) for part in stretches],
        )

    def test(self) -> tuple[list[float], list[float]]:
        """Iterations and error on the set that was watched."""
        evals = [r for r in self.rows if r["kind"] == "eval"]
        watched = [r for r in evals if r["set"] == evals[0]["set"]]
        return [r["iteration"] for r in watched], [r["top1_error"] for r in watched]


def draw_curves(rows: Sequence[Row], title: str) -> str:
    """One run's curves as SVG text."""
    return draw([Curve(title, rows)], title)


def draw(curves: Sequence[Curve], title: str, *, highest: float | None = None) -> str:
    """Several runs in one figure, as SVG text; `highest` cuts the error axis, percent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for index, curve in enumerate(curves):
        colour = COLOURS[index % len(COLOURS)]
        dashes = "--" if index >= len(COLOURS) else "-"
        axes.plot(*curve.train(), color=colour, linewidth=0.8, linestyle=dashes, alpha=0.8)
        axes.plot(*curve.test(), color=colour, linewidth=2.2, linestyle=dashes, label=curve.label)
    axes.set(xlabel="iteration", ylabel="error (%)", title=title)
    axes.set_ylim(0, highest)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    legend_title = "bold: test, thin: training"
    axes.legend(title=legend_title, frameon=False, fontsize=9, title_fontsize=9)
    return svg_of(figure)


def svg_of(figure: Any) -> str:
    """A figure as SVG text that is the same for the same figure."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "reslab"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
