"""What each study of `reslab study` runs, and the page that comes of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reslab.studies.experiments import PlannedRun
    from reslab.studies.records import Record


@dataclass(frozen=True)
class Study:
    """The runs of a study, and its page once they are finished."""

    folder: Path
    planned: "Sequence[PlannedRun]"
    write: "Callable[[], tuple[Path, Sequence[Record]]]"


def must_not_be_given(name: str, options: Mapping[str, object]) -> None:
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{option} {value} does not apply to the study {name}")


def study_by_depths(
    name: str,
    on: str,
    data: Path | None,
    out: Path | None,
    depths: str | None,
    iterations: int | None,
    seeds: int,
) -> Study:
    """Classifiers beside each other."""
    from reslab.data.builtin import open_sets, set_named
    from reslab.studies.experiments import experiment, plan_runs
    from reslab.studies.page.classifiers import write_report
    from reslab.studies.records import read_classifier

    it = experiment(name, parse_depths(depths))
    chosen = set_named(on)
    folder = out or Path("studies") / f"{name}-{on}"
    planned = plan_runs(it, chosen, folder, iterations=iterations, seeds=seeds)
    open_sets(chosen, data)  # a missing set is told of here, once, not by every run

    def write() -> "tuple[Path, Sequence[Record]]":
        records = [read_classifier(run.folder) for run in planned]
        return write_report(records, folder, it.title, it.question), records

    return Study(folder, planned, write)


def detection_study(out: Path | None, iterations: int | None, seeds: int) -> Study:
    """A classifier, then detectors on its trunk and on an untrained one."""
    from reslab.detection.average_precision.measure import import_pycocotools
    from reslab.studies.detection import read_detector
    from reslab.studies.experiments import plan_detection
    from reslab.studies.page.detectors import QUESTION, TITLE, write_detectors
    from reslab.studies.records import read_classifier

    import_pycocotools()  # better missed now than by the second run
    folder = out or Path("studies") / "detection-digit-scenes"
    planned = plan_detection(folder, iterations=iterations, seeds=seeds)

    def write() -> "tuple[Path, Sequence[Record]]":
        trunk = read_classifier(planned[0].folder)
        # all seeds of one recipe, then those of the other
        places = sorted(planned[1:], key=lambda run: run.weights is None)
        records = [read_detector(run.folder) for run in places]
        page = write_detectors(records, folder, TITLE, QUESTION, [trunk])
        return page, [trunk, *records]

    return Study(folder, planned, write)


def parse_depths(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(","))) if text else ()
    except ValueError:
        raise ValueError(f"--depths {text}: whole numbers with commas between, as 20,56") from None
