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

    def watched_set(self) -> str:
        """The set that was evaluated on the way: the test, or what was held out."""
        return next((row["set"] for row in self.rows if row["kind"] == "eval"), "test")

    def watched(self) -> tuple[list[float], list[float]]:
        """Iterations and error on that set."""
        name = self.watched_set()
        rows = [row for row in self.rows if row["kind"] == "eval" and row["set"] == name]
        return [row["iteration"] for row in rows], [row["top1_error"] for row in rows]


def draw_curves(rows: Sequence[Row], title: str) -> str:
    """One run's curves as SVG text."""
    from matplotlib.figure import Figure

    curve = Curve(title, rows)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*curve.train(), color=COLOURS[0], linewidth=0.9, label="training")
    axes.plot(*curve.watched(), color=COLOURS[0], linewidth=2.4, label=curve.watched_set())
    axes.set(xlabel="iteration", ylabel="error (%)", title=title)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return svg_of(figure)


def svg_of(figure: Any) -> str:
    """A figure as SVG text that is the same for the same figure."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "reslab"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
