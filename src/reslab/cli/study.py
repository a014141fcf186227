"""`reslab study` and `reslab report`"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.console import (
    AsJson,
    parse_numbers,
    print_json,
    print_line,
    progress_bars,
    progress_display,
    stopping,
    to_stderr,
    warn,
)

if TYPE_CHECKING:
    from reslab.studies.execute import RunCallback
    from reslab.studies.experiments import PlannedRun
    from reslab.studies.records import Record


def study(
    name: Annotated[
        str, typer.Argument(help="degradation, depth, shortcuts, detection or responses.")
    ],
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN", help="Finished runs, for `responses`.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="digits or cifar10; default: digits.")] = None,
    data: Annotated[str | None, typer.Option(help="The data set's folder.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The study's folder; default: studies/NAME-SET.")
    ] = None,
    depths: Annotated[
        str | None, typer.Option(help="Numbers of layers, e.g. 20,56; default: the study's own.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Shorten the schedule, scaling its drops.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, starting at 1.")] = 1,
    jobs: Annotated[
        int, typer.Option(min=1, help="Concurrent runs per machine; they share its cores.")
    ] = 1,
    cluster: Annotated[
        str | None, typer.Option(help="ray: distribute the runs over a Ray cluster.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Answer one of the paper's questions with a set of runs: figures, table, report.html.

    Finished runs are skipped, interrupted runs are resumed.
    """
    from reslab.api import studies

    layers = tuple(dict.fromkeys(parse_numbers("--depths", depths, "20,56")))
    try:
        with progress_display() as on_event:
            page, records = studies.study(
                name, runs or [],
                on=on, data=data, out=out, depths=layers, iterations=iterations, seeds=seeds,
                jobs=jobs, cluster=cluster, watch=watch_runs, on_event=on_event,
            )  # fmt: skip
    except studies.StudyInterrupted as interrupted:
        warn(str(interrupted))
        return 128 + interrupted.signal
    print_page(page, records, as_json)
    return 0


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Finished run folders.")],
    out: Annotated[Path, typer.Option(help="The folder for the page, table and figures.")] = Path(
        "report"
    ),
    as_json: AsJson = False,
) -> None:
    """Write one page on finished runs: figures, table, recipes, environment, deviations."""
    from reslab.api import studies

    print_page(*studies.report(runs, out), as_json)


def print_page(page: Path, records: "Sequence[Record]", as_json: bool) -> None:
    if as_json:
        runs = [{"run": str(record.path), **record.result} for record in records]
        print_json({"report": str(page), "runs": runs})
    else:
        print_line(page.with_name("table.md").read_text())
        print_line(f"report: {page}")


@contextmanager
def watch_runs(
    runs: "Sequence[PlannedRun]",
) -> "Iterator[tuple[RunCallback, Callable[[], int | None]]]":
    """Show the progress of the runs, and record signals."""
    with stopping(begun=True) as stop, runs_display(runs) as on_event:
        yield on_event, stop


@contextmanager
def runs_display(runs: "Sequence[PlannedRun]") -> "Iterator[RunCallback]":
    """Yield a callback that shows a progress bar per run, or prints a line as each run ends.

    Bars are for a terminal, lines for any other output.
    """
    total = {run: run.recipe.iterations for run in runs}
    if not sys.stderr.isatty():
        ended: set[PlannedRun] = set()

        def print_ended(run: "PlannedRun", done: int) -> None:
            if done >= total[run] and run not in ended:
                ended.add(run)
                to_stderr(f"{run.folder.name}: {done} iterations done")

        yield print_ended
        return
    with progress_bars() as bars:
        tasks = {run: bars.add_task(run.folder.name, total=total[run], start=False) for run in runs}

        def advance(run: "PlannedRun", done: int) -> None:
            if done:
                bars.start_task(tasks[run])
            bars.update(tasks[run], completed=done)

        yield advance
