"""Run studies, the paper's or the user's own, and write report pages on finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from reslab.analysis.responses import layer_responses
from reslab.api.display import OnEvent, showing
from reslab.api.lines import clock, warn
from reslab.api.models import open_classifier, path_of
from reslab.api.results import ReportPage, run_result
from reslab.api.signals import Stopping, stopping_python
from reslab.api.test_sets import open_test_set
from reslab.data.datasets import ImagesInMemory
from reslab.data.location import parse_location, to_folder
from reslab.errors import os_reason, unknown_name
from reslab.evaluation.predict import Predictor
from reslab.runtime.device import setup_device
from reslab.runtime.events import Callback, Event, note
from reslab.runtime.threads import usable_cores
from reslab.studies.execute import RunCallback, is_finished, launch_here, run_all
from reslab.studies.experiments import PlannedRun, Study, plan_study, refuse_options, write_report
from reslab.studies.page.classifiers import write_responses
from reslab.studies.progress import Forecast, RunProgress
from reslab.studies.records import Record, read_record
from reslab.training.recipe import Recipe

CLUSTERS = ("ray",)
RESPONSES = "responses"  # the study that takes finished runs


class StudyInterrupted(Exception):
    """A signal stopped a study, after every run was saved.

    `page` has the curves so far; it is None if there are none yet.
    """

    def __init__(self, signal: int, folder: Path, page: Path | None) -> None:
        self.signal, self.page = signal, page
        self.saved = f"stopped, every run in {folder} saved"
        if page:
            self.saved += f", curves so far in {page}"
        super().__init__(f"{self.saved}; the same command resumes them")


def study(
    study: str | Study,
    runs: Sequence[str | Path | Predictor] = (),
    *,
    on: str | None = None,
    data: str | Path | ImagesInMemory | None = None,
    out: str | Path | None = None,
    depths: Sequence[int] = (),
    iterations: int | None = None,
    seeds: int = 1,
    jobs: int = 1,
    cluster: str | None = None,
    on_event: OnEvent = "print",
) -> ReportPage:
    """Answer a question with a set of runs, and write the report page.

    `study` is one of the paper's ("degradation", "depth", "shortcuts", "detection") or a `Study` of
    your own. Its runs are started as processes, `jobs` at a time on each machine, `cluster="ray"`
    distributes them over a Ray cluster; finished runs are skipped and interrupted runs are resumed.
    "responses" measures the layer responses (Fig. 7) of finished `runs` instead: folders, or
    results of `load` for networks of your own. For images of your own, `data` is the test set.

    For the paper's studies, `on` is the data set, "digits" (default) or "cifar10"; `data` its
    folder; `out` the study's folder, by default studies/NAME-SET; `depths` the numbers of layers;
    `iterations` shortens the schedule; `seeds` is the number of seeds, starting at 1.

    Ctrl-C lets every run save a checkpoint, writes a page with the curves so far and raises
    KeyboardInterrupt; the same call resumes.
    Raise ValueError for an argument that does not apply to the study, and RuntimeError, with the
    reason, if a run fails.
    """
    stopping = partial(stopping_python, warn if on_event else lambda line: None, begun=True)
    with showing(on_event) as callback:
        try:
            return run_study(
                study, [run if isinstance(run, Predictor) else Path(run) for run in runs],
                on=on, data=data, out=Path(out) if out else None, depths=depths,
                iterations=iterations, seeds=seeds, jobs=jobs, cluster=cluster,
                stopping=stopping, on_event=callback,
            )  # fmt: skip
        except StudyInterrupted as interrupted:
            raise KeyboardInterrupt(f"{interrupted.saved}; the same call resumes them") from None


def run_study(
    study: str | Study,
    runs: Sequence[Path | Predictor],
    *,
    on: str | None,
    data: str | Path | ImagesInMemory | None,
    out: Path | None,
    depths: Sequence[int],
    iterations: int | None,
    seeds: int,
    jobs: int,
    cluster: str | None,
    stopping: Stopping,
    on_event: Callback,
) -> ReportPage:
    """Do the work of `study`; `stopping` is a context in which a signal is recorded.

    Raise StudyInterrupted after a signal.
    """
    for name, count in {"seeds": seeds, "jobs": jobs}.items():
        if count < 1:
            raise ValueError(f"{name}={count}: at least 1")
    if cluster and cluster not in CLUSTERS:
        raise ValueError(unknown_name("cluster", cluster, CLUSTERS))
    planning = {"on": on, "depths": ",".join(map(str, depths)), "iterations": iterations}
    if study == RESPONSES:
        refuse_options(RESPONSES, planning | {"cluster": cluster})
        images = data if isinstance(data, ImagesInMemory) else study_folder(data)
        return study_responses(runs, images, out, on_event)
    if isinstance(data, ImagesInMemory):
        raise ValueError("a set of images as `data` applies only to the study `responses`")
    folder = study_folder(data)
    if isinstance(study, Study):
        refuse_options(study.heading[0], planning | {"out": out, "runs": runs})
        if not study.runs:
            raise ValueError(f"the study {study.heading[0]!r} has no runs: give it at least one")
        planned = study
    else:
        if runs:
            raise ValueError(f"{study} makes its own runs; only 'responses' takes run folders")
        planned = plan_study(
            study, on=on, data=folder, out=out, depths=depths, iterations=iterations, seeds=seeds
        )
    if signal := execute(planned, folder, jobs, cluster, stopping, on_event):
        raise StudyInterrupted(signal, planned.folder, page_so_far(planned, on_event))
    return report_page(*planned.write_page())


def study_folder(data: str | Path | None) -> Path | None:
    return to_folder(parse_location(data), "a study needs") if data else None


def page_so_far(study: Study, on_event: Callback) -> Path | None:
    """Write the page of a stopped study and return its path; None if nothing can be drawn."""
    try:
        return study.write_unfinished_page()
    except (OSError, ValueError) as error:  # a full disk, or a damaged log; the runs are saved
        reason = os_reason(error) if isinstance(error, OSError) else error
        on_event(note(f"the page with the curves so far is missing: {reason}"))
        return None


def execute(
    study: Study,
    data: Path | None,
    jobs: int,
    cluster: str | None,
    stopping: Stopping,
    on_event: Callback,
) -> int | None:
    """Finish all runs of a study; return the number of the signal that stopped it, or None."""
    from reslab.studies.cluster import launch_on_ray

    runs = study.runs
    with ExitStack() as stack:
        if cluster:
            launch, concurrent = stack.enter_context(launch_on_ray(data, jobs)), len(runs)
        else:
            concurrent = min(jobs, len(runs))
            launch = launch_here(data, max(usable_cores() // concurrent, 1))
        # after Ray has started: its own signal handlers would end us without stopping the runs
        stop = stack.enter_context(stopping())
        # how many runs train at the same time on a cluster is not known
        forecast = None if cluster else Forecast(runs, concurrent)
        if not all(is_finished(run.folder) for run in runs):
            on_event(note(announcement(study, None if cluster else concurrent)))
        on_run = reporting_runs(runs, forecast, on_event)
        return run_all(runs, launch, jobs=concurrent, on_event=on_run, stop=stop)


def announcement(study: Study, concurrent: int | None) -> str:
    """Describe in a line what the study is about to do, with `concurrent` runs at a time."""
    iterations = sorted({run.recipe.iterations for run in study.runs})
    finished = sum(is_finished(run.folder) for run in study.runs)
    count, lengths = len(study.runs), " or ".join(f"{length:,}" for length in iterations)
    return (
        f"{count} {'run' if count == 1 else 'runs'} of {lengths} iterations"
        + (f", {concurrent} at a time" if concurrent else "")
        + (f"; {finished} finished before" if finished else "")
        + f"; then the results in {study.folder / 'report.html'}. Ctrl-C saves the runs and draws "
        "their curves so far"
    )


def reporting_runs(
    runs: Sequence[PlannedRun], forecast: Forecast | None, on_event: Callback
) -> RunCallback:
    """Report all runs of a study as not begun, and return a callback for their progress.

    The time left is reported once it can be estimated, and again whenever a run ends.
    """
    totals = {run: run.recipe.iterations for run in runs}
    ended: int | None = None  # runs that had ended when the time left was last reported

    def report(run: PlannedRun, progress: RunProgress) -> None:
        nonlocal ended
        on_event(run_event(run.folder.name, progress, totals[run]))
        if forecast is None:
            return
        forecast.observe(run, progress.iterations)
        seconds = forecast.seconds_left()
        if seconds and forecast.ended != ended:
            ended = forecast.ended
            on_event(note(f"about {clock(seconds)} left"))

    for run in runs:
        on_event(run_event(run.folder.name, RunProgress(), totals[run]))
    return report


def run_event(name: str, progress: RunProgress, total: int) -> Event:
    event: Event = {"kind": "run", "run": name, "done": progress.iterations, "total": total}
    if progress.train_error is not None:
        event["train_error"] = progress.train_error
    return event


def study_responses(
    runs: Sequence[Path | Predictor],
    data: Path | ImagesInMemory | None,
    out: Path | None,
    on_event: Callback,
) -> ReportPage:
    """Measure the layer responses of finished runs (Fig. 7) and write the report page."""
    if not runs:
        raise ValueError("responses of which runs? give the folders of finished runs")
    device = setup_device("fp32").torch_device
    records = [read_record(path_of(run), Recipe) for run in runs]
    responses = []
    for run, record in zip(runs, records, strict=True):
        on_event(note(f"responses of {record.path}"))
        _, model = open_classifier(run, device)
        images = (
            data
            if isinstance(data, ImagesInMemory)
            else open_test_set(record.recipe.data, data, record.path)
        )
        responses.append(layer_responses(model, images.to(device)))
    page = write_responses(records, responses, out or Path("studies") / RESPONSES)
    return report_page(page, records)


def report(runs: str | Path | Sequence[str | Path], out: str | Path = "report") -> ReportPage:
    """Write a page on finished runs of classifiers, or of detectors, into the folder `out`.

    The page shows curves, a table over seeds, errors by class, recipes, environment, and deviations
    from the paper. Raise ValueError if a run is not finished, or if the runs are of both kinds.
    """
    paths = [runs] if isinstance(runs, str | Path) else runs
    if not paths:
        raise ValueError("a report on which runs? give at least one run folder")
    return report_page(*write_report(list(map(Path, paths)), Path(out)))


def report_page(path: Path, records: Sequence[Record]) -> ReportPage:
    return ReportPage(path, tuple(run_result(record.path, record.result) for record in records))
