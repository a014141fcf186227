"""Plot a run's curves in the paper's style: thin training error, bold test error (Fig. 6)."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reslab.runtime.events import Event
from reslab.runtime.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which most colour-blind readers can distinguish
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


@dataclass(frozen=True)
class Curve:
    """The errors or precisions of one run over its iterations, in percent."""

    label: str
    rows: Sequence[Event]

    def train(self, bins: int = 120) -> tuple[list[float], list[float]]:
        """Return iterations and training errors, averaged over at most `bins` intervals."""
        points = [(r["iteration"], r["train_error"]) for r in self.rows if r["kind"] == "train"]
        size = max(1, -(-len(points) // bins))
        stretches = [points[i : i + size] for i in range(0, len(points), size)]
        return (
            [sum(x for x, _ in part) / len(part) for part in stretches],
            [sum(y for _, y in part) / len(part) for part in stretches],
        )

    def watched_set(self) -> str:
        """Return the name of the set monitored during training: test, or the held-out set."""
        return next((row["set"] for row in self.rows if row["kind"] == "eval"), "test")

    def of_boxes(self) -> bool:
        """Return whether the evaluations report a detector's average precision, not an error."""
        return any("map_50" in row for row in self.rows)

    def watched(self) -> tuple[list[float], list[float]]:
        """Return iterations and top-1 error (or a detector's mAP@.5) on the monitored set."""
        name = self.watched_set()
        measure = "map_50" if self.of_boxes() else "top1_error"
        rows = [row for row in self.rows if row.get("set") == name and measure in row]
        return [row["iteration"] for row in rows], [row[measure] for row in rows]


def draw_curves(rows: Sequence[Event], title: str) -> str:
    """Plot one run's curves and return them as SVG text."""
    from matplotlib.figure import Figure

    curve = Curve(title, rows)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    train, watched, measured = "training", curve.watched_set(), "error (%)"
    if curve.of_boxes():
        train, watched, measured = "training error of regions", f"{watched} mAP@.5", "percent"
    axes.plot(*curve.train(), color=COLOURS[0], linewidth=0.9, label=train)
    iterations, values = curve.watched()
    if iterations:
        axes.plot(iterations, values, color=COLOURS[0], linewidth=2.4, label=legend_label(watched))
    axes.set(xlabel="iteration", ylabel=measured, title=title)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return svg_of(figure)


def svg_of(figure: "Figure") -> str:
    """Return a matplotlib figure as SVG text, reproducibly: it holds no date and no random ids.

    Names in it are text, never formulas. Letters are drawn as outlines; if matplotlib's font lacks
    any, they stay letters, for the fonts of the reader.
    """
    import matplotlib
    from matplotlib.font_manager import findfont, get_font
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    for text in texts:
        text.set(parse_math=False, usetex=False, text=printable(text.get_text()))
    letters = {ord(letter) for text in texts for letter in text.get_text()}
    has_outlines = letters <= get_font(findfont("DejaVu Sans")).get_charmap().keys()
    settings = {"svg.hashsalt": "reslab", "svg.fonttype": "path" if has_outlines else "none"}
    svg = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def legend_label(name: str) -> str:
    """Return a name as the label of a curve; matplotlib would hide one that begins with "_"."""
    return f" {name}" if name.startswith("_") else name
