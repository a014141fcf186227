"""`reslab study` and `reslab report`"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.api.display import progress_display
from reslab.api.lines import warn
from reslab.api.signals import exit_at_signal, stopping
from reslab.cli.console import AsJson, parse_numbers, print_json, print_line

if TYPE_CHECKING:
    from reslab.api.results import ReportPage


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
    """Answer one of the paper's questions with a set of runs.

    Writes figures, a table and report.html; if stopped, a page with the curves so far. Finished
    runs are skipped, interrupted runs are resumed.
    """
    from reslab.api import studies

    layers = tuple(dict.fromkeys(parse_numbers("--depths", depths, "20,56")))
    try:
        with progress_display() as on_event:
            page = studies.run_study(
                name, runs or [],
                on=on, data=data, out=out, depths=layers, iterations=iterations, seeds=seeds,
                jobs=jobs, cluster=cluster,
                stopping=partial(stopping, warn, exit_at_signal, begun=True), on_event=on_event,
            )  # fmt: skip
    except studies.StudyInterrupted as interrupted:
        warn(str(interrupted))
        return 128 + interrupted.signal
    print_page(page, as_json)
    return 0


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Finished run folders.")],
    out: Annotated[Path, typer.Option(help="The folder for the page, table and figures.")] = Path(
        "report"
    ),
    as_json: AsJson = False,
) -> None:
    """Write one page on finished runs.

    It has figures, a table, the recipes, the environment and the deviations from the paper.
    """
    from reslab.api import studies

    print_page(studies.report(runs, out), as_json)


def print_page(page: "ReportPage", as_json: bool) -> None:
    if as_json:
        print_json(page.as_dict())
    else:
        print_line(page.table)
        print_line(f"report: {page.path}")
