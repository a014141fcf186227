"""`reslab study`"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.console import print_json, print_line, stopping, to_stderr, warn

if TYPE_CHECKING:
    from reslab.studies.execute import RunCallback
    from reslab.studies.experiments import PlannedRun, Study


def study(
    name: Annotated[
        str, typer.Argument(help="degradation, depth, shortcuts, detection, responses.")
    ],
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Finished runs, for `responses`.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="digits or cifar10; else digits.")] = None,
    data: Annotated[str | None, typer.Option(help="The folder that holds the data set.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The study's folder; else studies/NAME-SET.")
    ] = None,
    depths: Annotated[
        str | None, typer.Option(help="Layers, as 20,56; else the study's own.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="A shorter schedule, drops scaled.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from seed 1.")] = 1,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time on a machine; they share its cores.")
    ] = 1,
    cluster: Annotated[
        str | None, typer.Option(help="ray: spread the runs over the machines of a cluster.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The table as one JSON document.")
    ] = False,
) -> int:
    """Answer one of the paper's questions by a set of runs: figures, table, report.html.

    Runs that are finished are not run again, interrupted ones go on.
    """
    from reslab.data.location import parse_location, to_folder
    from reslab.errors import unknown_name
    from reslab.studies.experiments import plan_study, refuse_options

    if cluster not in (None, "ray"):
        raise ValueError(unknown_name("cluster", cluster, ("ray",)))
    folder = to_folder(parse_location(data), "a study needs") if data else None
    if name == "responses":
        of_others = {"--on": on, "--depths": depths, "--iterations": iterations}
        refuse_options(name, of_others | {"--cluster": cluster})
        page, records = study_responses(runs or [], folder, out)
    else:
        if runs:
            raise ValueError(f"{name} makes its own runs; only `responses` takes run folders")
        planned = plan_study(
            name, on=on, data=folder, out=out, depths=parse_depths(depths), iterations=iterations,
            seeds=seeds,
        )  # fmt: skip
        status = carried_out(planned, folder, jobs, cluster)
        if status:
            return status
        page, records = planned.write_page()
    table = page.with_name("table.md")
    if as_json:
        print_json(
            {"report": str(page), "runs": [{"run": str(r.path), **r.result} for r in records]}
        )
    else:
        print_line(table.read_text())
        print_line(f"report: {page}")
    return 0


def parse_depths(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(","))) if text else ()
    except ValueError:
        raise ValueError(f"--depths {text}: whole numbers with commas between, as 20,56") from None


def carried_out(study: "Study", data: Path | None, jobs: int, cluster: str | None) -> int:
    """Finish all runs; the exit status."""
    from reslab.runtime.threads import usable_cores
    from reslab.studies.cluster import launch_on_ray
    from reslab.studies.execute import launch_here, run_all

    with ExitStack() as ending:
        if cluster:
            launch, at_a_time = ending.enter_context(launch_on_ray(data, jobs)), len(study.runs)
        else:
            launch, at_a_time = launch_here(data, max(usable_cores() // jobs, 1)), jobs
        # Ray would end at once, and without the runs
        stop = ending.enter_context(stopping(begun=True))
        on_event = ending.enter_context(study_display(study.runs))
        signal = run_all(study.runs, launch, jobs=at_a_time, on_event=on_event, stop=stop)
    if signal:
        warn(f"stopped, every run saved; the same command goes on: {study.folder}")
        return 128 + signal
    return 0


def study_responses(runs: Sequence[Path], data: Path | None, out: Path | None):
    """Fig. 7 of finished runs: the page, the records."""
    from reslab.analysis.responses import layer_responses
    from reslab.cli.chosen import test_set
    from reslab.models.model_file import load_model
    from reslab.runtime.device import setup_device
    from reslab.studies.page.classifiers import write_responses
    from reslab.studies.records import read_record
    from reslab.training.recipe import Recipe

    if not runs:
        raise ValueError("responses of which runs? `reslab study responses RUN...`")
    device = setup_device("fp32")
    records = [read_record(run, Recipe) for run in runs]
    responses = []
    for record in records:
        warn(f"responses of {record.path}")
        images = test_set(record.recipe.data, data, record.path).to(device.torch_device)
        responses.append(layer_responses(load_model(record.path).to(device.torch_device), images))
    return write_responses(records, responses, out or Path("studies") / "responses"), records


@contextmanager
def study_display(planned: "Sequence[PlannedRun]") -> "Iterator[RunCallback]":
    """A bar a run on a terminal; elsewhere a line when a run has ended."""
    total = {run: run.recipe.iterations for run in planned}
    if not sys.stderr.isatty():
        ended: set[PlannedRun] = set()

        def print_ended(run: "PlannedRun", done: int) -> None:
            if done >= total[run] and run not in ended:
                ended.add(run)
                to_stderr(f"{run.folder.name}: {done} iterations done")

        yield print_ended
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks = {
            run: bar.add_task(run.folder.name, total=total[run], start=False) for run in planned
        }

        def show(run: "PlannedRun", done: int) -> None:
            if done:
                bar.start_task(tasks[run])
            bar.update(tasks[run], completed=done)

        yield show


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished run folders.")],
    out: Annotated[Path, typer.Option(help="Where the page, table and figures go.")] = Path(
        "report"
    ),
    as_json: Annotated[
        bool, typer.Option("--json", help="The results as one JSON document.")
    ] = False,
) -> None:
    """Make one page of any finished runs: figures, table, recipes, environment, deviations."""
    from reslab.studies.experiments import write_report

    page, records = write_report(runs, out)
    if as_json:
        print_json(
            {"report": str(page), "runs": [{"run": str(r.path), **r.result} for r in records]}
        )
    else:
        print_line(page.with_name("table.md").read_text())
        print_line(f"report: {page}")
