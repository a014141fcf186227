"""Run the paper's studies and write report pages on finished runs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from reslab.analysis.responses import layer_responses
from reslab.api.test_sets import open_test_set
from reslab.data.location import parse_location, to_folder
from reslab.errors import unknown_name
from reslab.models.model_file import load_model
from reslab.runtime.device import setup_device
from reslab.runtime.events import Callback, note, silent
from reslab.runtime.threads import usable_cores
from reslab.studies.execute import RunCallback, launch_here, run_all
from reslab.studies.experiments import PlannedRun, Study, plan_study, refuse_options, write_report
from reslab.studies.page.classifiers import write_responses
from reslab.studies.records import Record, read_record
from reslab.training.recipe import Recipe

# a context entered when the runs can start; yields a callback for their progress, and a function
# that returns the number of a signal received, or None
Watch = Callable[
    [Sequence[PlannedRun]], AbstractContextManager[tuple[RunCallback, Callable[[], int | None]]]
]


CLUSTERS = ("ray",)


class StudyInterrupted(Exception):
    """A signal stopped a study, after every run was saved."""

    def __init__(self, signal: int, folder: Path) -> None:
        super().__init__(f"stopped, every run saved; the same command goes on: {folder}")
        self.signal = signal


def study(
    name: str,
    runs: Sequence[Path] = (),
    *,
    on: str | None = None,
    data: str | None = None,
    out: Path | None = None,
    depths: Sequence[int] = (),
    iterations: int | None = None,
    seeds: int = 1,
    jobs: int = 1,
    cluster: str | None = None,
    watch: Watch,
    on_event: Callback = silent,
) -> tuple[Path, list[Record]]:
    """Answer one of the paper's questions with a set of runs, and write the report page.

    Return the page's path and the records of its runs. Finished runs are skipped, interrupted runs
    are resumed. The study `responses` takes finished `runs`; the other studies make their own runs,
    `jobs` at a time on each machine.
    """
    if cluster and cluster not in CLUSTERS:
        raise ValueError(unknown_name("cluster", cluster, CLUSTERS))
    folder = to_folder(parse_location(data), "a study needs") if data else None
    if name == "responses":
        layers = ",".join(map(str, depths))
        refuse_options(
            name, {"--on": on, "--depths": layers, "--iterations": iterations, "--cluster": cluster}
        )
        return study_responses(runs, folder, out, on_event)
    if runs:
        raise ValueError(f"{name} makes its own runs; only `responses` takes run folders")
    planned = plan_study(
        name, on=on, data=folder, out=out, depths=depths, iterations=iterations, seeds=seeds
    )
    if signal := execute(planned, folder, jobs, cluster, watch):
        raise StudyInterrupted(signal, planned.folder)
    return planned.write_page()


def execute(
    study: Study, data: Path | None, jobs: int, cluster: str | None, watch: Watch
) -> int | None:
    """Finish all runs of a study; return the number of the signal that stopped it, or None."""
    from reslab.studies.cluster import launch_on_ray

    with ExitStack() as stack:
        if cluster:
            launch, concurrent = stack.enter_context(launch_on_ray(data, jobs)), len(study.runs)
        else:
            launch, concurrent = launch_here(data, max(usable_cores() // jobs, 1)), jobs
        # after Ray has started: its own signal handlers would end us without stopping the runs
        on_event, stop = stack.enter_context(watch(study.runs))
        return run_all(study.runs, launch, jobs=concurrent, on_event=on_event, stop=stop)


def study_responses(
    runs: Sequence[Path], data: Path | None, out: Path | None, on_event: Callback
) -> tuple[Path, list[Record]]:
    """Measure the layer responses of finished runs (Fig. 7) and write the report page."""
    if not runs:
        raise ValueError("responses of which runs? `reslab study responses RUN...`")
    device = setup_device("fp32").torch_device
    records = [read_record(run, Recipe) for run in runs]
    responses = []
    for record in records:
        on_event(note(f"responses of {record.path}"))
        images = open_test_set(record.recipe.data, data, record.path).to(device)
        responses.append(layer_responses(load_model(record.path).to(device), images))
    page = write_responses(records, responses, out or Path("studies") / "responses")
    return page, records


def report(runs: Sequence[Path], out: Path) -> tuple[Path, list[Record]]:
    """Write one page on finished runs of the same task; return its path and their records."""
    return write_report(runs, out)
