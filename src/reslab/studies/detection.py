"""Finished runs of detectors, and what they found in the images of their test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.detection.average_precision.measure import AveragePrecision, measure
from reslab.detection.average_precision.results import read_results
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import OpenedSets, open_detection_data
from reslab.detection.task import DETECTIONS_FILE
from reslab.models.config import ResNetConfig
from reslab.runtime.events import Event
from reslab.studies.records import (
    Record,
    SeedGroup,
    Seeds,
    rows_and_result,
)
from reslab.training.folder import RunFolder


@dataclass(frozen=True)
class DetectorRecord(Record):
    """One finished run of a detector."""

    recipe: DetectionRecipe

    @property
    def network(self) -> ResNetConfig:
        return self.recipe.model.trunk

    @property
    def trained(self) -> bool:
        """Whether it started from trained weights."""
        return self.recipe.weights is not None

    @property
    def label(self) -> str:
        return f"{self.network_label}, {'trained' if self.trained else 'untrained'} trunk"

    @property
    def place(self) -> str:
        """The images of the test; those of one's own are known by the part's name alone."""
        part = self.report["set"]
        return part if self.recipe.data == "boxes" else f"{self.recipe.data}, {part}"

    @property
    def report(self) -> Event:
        return self.result["evaluation"][-1]

    @property
    def precision(self) -> AveragePrecision:
        """The final report, without curves."""
        report = self.report
        return AveragePrecision(
            report["set"], report["protocol"], report["n"], report["map_50"], report["map_50_95"],
            report.get("coco", {}), [dict(map(number, row.items())) for row in report["per_class"]],
        )  # fmt: skip


def number(entry: tuple[str, object]) -> tuple[str, object]:
    """What JSON has as null is not a number."""
    key, value = entry
    return key, float("nan") if value is None else value


Detectors = SeedGroup[DetectorRecord]


def read_detector(path: Path) -> DetectorRecord:
    """A finished run of a detector; ValueError if it is not one."""
    folder = RunFolder.open(path)
    recipe = folder.recipe_as(DetectionRecipe)
    rows, result = rows_and_result(folder)
    if not result["evaluation"]:
        raise ValueError(f"{path} is a step of alternating training: it measured nothing")
    return DetectorRecord(path, recipe, folder.environment(), rows, result)


def over_seeds(group: Detectors, of: Callable[[AveragePrecision], float | None]) -> Seeds | None:
    """A precision of a recipe over its seeds; None where the protocol has no such number."""
    values = [of(run.precision) for run in group.runs]
    known = tuple(value for value in values if value is not None)
    return Seeds(known, max) if known else None


def map_50(group: Detectors) -> Seeds:
    found = over_seeds(group, lambda it: it.map_50)
    assert found is not None
    return found


def map_50_95(group: Detectors) -> Seeds | None:
    return over_seeds(group, lambda it: it.map_50_95)


def mean_precision(group: Detectors) -> AveragePrecision:
    """The final reports of a group as one: numbers and classes are means over its seeds."""
    reports = [run.precision for run in group.runs]
    strict = map_50_95(group)
    rows = []
    for of_class in zip(*(report.per_class for report in reports), strict=True):
        means = {
            key: float(np.mean([row[key] for row in of_class]))
            for key in ("ap_50", "ap_50_95")
            if key in of_class[0]
        }
        detections = round(np.mean([row["detections"] for row in of_class]))
        rows.append({**of_class[0], **means, "detections": detections})
    return replace(
        reports[0],
        map_50=map_50(group).mean,
        map_50_95=None if strict is None else strict.mean,
        per_class=rows,
    )


ImageSource = tuple[str, str | None, str, float]  # that the images of a recipe come from


@dataclass(frozen=True)
class FinalDetections:
    """What a run found at its end, image by image."""

    label: str
    images: DetectionSet
    found: Sequence[Detections]
    protocol: str  # of `measure`

    @property
    def precision(self) -> AveragePrecision:
        """Measured again, with curves."""
        return measure(self.images, self.found, self.protocol)


def final_detections(
    groups: Sequence[Detectors], labels: Sequence[str]
) -> tuple[list[FinalDetections], list[str]]:
    """Of the first run of each recipe; and why it is not known of others, whose images may have
    gone."""
    opened: dict[ImageSource, OpenedSets] = {}  # runs on one page are mostly of the same images
    known: list[FinalDetections] = []
    reasons: list[str] = []
    for group, label in zip(groups, labels, strict=True):
        try:
            known.append(searched_by(group.first, label, opened))
        except (OSError, ValueError) as error:
            reasons.append(f"{label}: {error}")
    return known, reasons


def searched_by(
    record: DetectorRecord, label: str, opened: dict[ImageSource, OpenedSets]
) -> FinalDetections:
    """Of one run; ValueError or OSError if its images are not those of its test any more."""
    folder, recipe = record.environment["data"], record.recipe
    place = (recipe.data, folder, recipe.years, recipe.validation)
    if place not in opened:
        opened[place] = open_detection_data(recipe, Path(folder) if folder else None)
    images, protocol = opened[place].sets.test, opened[place].protocol
    count = record.report["n"]
    if len(images) != count:
        raise ValueError(f"it was tested on {count} images, there are {len(images)} now")
    return FinalDetections(
        label, images, read_results(record.path / DETECTIONS_FILE, images), protocol
    )
