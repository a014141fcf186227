"""`reslab benchmark`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.api.display import progress_display
from reslab.api.lines import speed
from reslab.cli.console import (
    AsJson,
    Backend,
    parse_numbers,
    print_json,
    print_line,
    print_table,
)

if TYPE_CHECKING:
    from reslab.api.benchmark_rows import Benchmark, BenchmarkRow

BUSY = 0.1  # of one core: from here on, other programs disturb the measurement


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Run folders, model files or exported files."),
    ],
    on: Annotated[
        str | None, typer.Option(help="digits or cifar10; default: the models' own test set.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A folder with images by class, shards, or a URL of shards.")
    ] = None,
    backend: Backend = "auto",
    batches: Annotated[str, typer.Option(help="Sizes of batches.")] = "1,16",
    images: Annotated[int, typer.Option(min=1, help="Most images of the set to test on.")] = 500,
    seconds: Annotated[float, typer.Option(help="Time for each measurement.")] = 3.0,
    out: Annotated[Path | None, typer.Option(help="A file for the figure, .svg.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure models in every backend installed: speed, memory, errors.

    Each row has a process of its own, whose calls take turns with those of the first row: eager
    torch as users of torchvision run it, batch norm apart and channels first. Exported files run in
    their own backend only. Everything runs on the CPU.
    """
    from reslab.api.benchmark import run_benchmark

    if out:
        must_be_new_svg(out)
    with progress_display() as on_event:
        measured = run_benchmark(
            models, on=on, data=data, backend=backend,
            batches=parse_numbers("--batches", batches, "1,16"), images=images, seconds=seconds,
            on_event=on_event,
        )  # fmt: skip
    if out:
        from reslab.api.benchmark_figure import write_figure

        write_figure(measured, out)
    if as_json:
        print_json(measured.as_dict())
    else:
        print_benchmark(measured)


def must_be_new_svg(out: Path) -> None:
    """Raise ValueError, before any work, unless `out` is a new .svg file in an existing folder."""
    from reslab.api.import_weights import check_new_file

    check_new_file(out, (".svg",))


def print_benchmark(measured: "Benchmark") -> None:
    """Print the table of a benchmark and what its columns mean."""
    first = measured.rows[0]
    columns = ["first answer", "p50", "p99"]
    for shown in first.throughput:
        columns += [f"by {shown.batch}", "times"]
    columns += ["memory", "file"]
    if measured.set_name:
        columns += ["top-1 error", "agrees"]
    labels = measured.labels()
    rows = [
        [label, *cells(row, answers=bool(measured.set_name))]
        for label, row in zip(labels, measured.rows, strict=True)
    ]
    print_table("", *columns, rows=rows)
    height, width = measured.image
    print_line(
        f"first answer: seconds from the start of a process; p50, p99: ms for one image of "
        f"{width} x {height}, decoded; by N: images/s in batches of N prepared images, and times "
        f"the speed of {labels[0]}; memory: the largest of the process, MiB; file: MB"
    )
    if any(row.resizes for row in measured.rows):
        print_line("files that take whole images resize them within these times")
    if measured.set_name:
        print_line(
            f"top-1 error: % of {measured.images} images of {measured.set_name}; agrees: % of them "
            f"with the answer of {labels[0]}"
        )
    if measured.busy > BUSY:
        print_line(
            f"other programs kept {measured.busy:.1f} of {measured.cores:g} cores busy: times are "
            "too long, and only their ratios mean something"
        )


def cells(row: "BenchmarkRow", *, answers: bool) -> list[str]:
    """Return a row's numbers as text."""
    texts = [f"{row.first_answer:.1f}", f"{row.p50:.1f}", f"{row.p99:.1f}"]
    for shown in row.throughput:
        texts += [speed(shown.images_per_second), f"{shown.speedup:.2f}"]
    texts += [f"{row.memory / 2**20:.0f}", f"{row.file_size / 1e6:.1f}"]
    if answers:
        texts.append("" if row.top1_error is None else f"{row.top1_error:.2f}")
        texts.append("–" if row.agreement is None else f"{row.agreement:.1f}")
    return texts
