"""Draw a benchmark: the time for one image, and the speed in batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reslab.api.benchmark_rows import Benchmark
from reslab.runtime.writing import atomic_write
from reslab.studies.page.figures import panels
from reslab.training.curves import COLOURS, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.42  # inches


def write_figure(measured: Benchmark, out: Path) -> None:
    """Write the figure of a benchmark as an SVG file."""
    atomic_write(out, draw_benchmark(measured).encode())


def draw_benchmark(measured: Benchmark) -> str:
    """Plot the time for one image, to the 99th percentile, and the speed with each batch size.

    Return SVG text.
    """
    rows = measured.rows[::-1]  # the first on top
    batches = [speed.batch for speed in rows[0].throughput]
    height = 1.4 + ROW * len(rows) * max(1, len(batches) / 2)
    figure, (latency, speed) = panels(1, 2, 11, height, sharey=True)
    places = range(len(rows))
    latency.barh(places, [row.p50 for row in rows], color=COLOURS[0])
    latency.hlines(places, [row.p50 for row in rows], [row.p99 for row in rows], color="black")
    latency.set(xlabel="ms for one image: median, line to the 99th percentile", xlim=(0, None))
    latency.set_yticks(places, measured.labels()[::-1])
    draw_speeds(speed, measured)
    for panel in (latency, speed):
        panel.grid(axis="x", alpha=0.25)
        panel.set_axisbelow(True)
    return svg_of(figure)


def draw_speeds(axes: Axes, measured: Benchmark) -> None:
    """Plot images per second, one bar per batch size."""
    rows = measured.rows[::-1]
    count = len(rows[0].throughput)
    thickness = 0.8 / count
    for index in range(count):
        shift = (count - 1) / 2 - index  # in the order of the legend
        speeds = [row.throughput[index] for row in rows]
        axes.barh(
            [place + shift * thickness for place in range(len(rows))],
            [speed.images_per_second for speed in speeds],
            thickness,
            color=COLOURS[(index + 1) % len(COLOURS)],
            label=f"batches of {speeds[0].batch}",
        )
    axes.set(xlabel="images/s", xlim=(0, None))
    axes.legend(frameon=False, fontsize=9)
