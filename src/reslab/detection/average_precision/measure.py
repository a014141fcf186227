"""Average precision as COCO measures it, by the code of COCO's authors."""

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reslab.data.boxes.sets import Detections, DetectionSet, GroundTruth
from reslab.detection.average_precision.voc import area, eleven_points, interpolated, rankings
from reslab.errors import unknown_name

# COCO's twelve numbers in its order: IoU, size of the objects, detections an image at most
TWELVE = {
    "ap": (".5:.95", "all", 100),
    "ap_50": (".5", "all", 100),
    "ap_75": (".75", "all", 100),
    "ap_small": (".5:.95", "small", 100),
    "ap_medium": (".5:.95", "medium", 100),
    "ap_large": (".5:.95", "large", 100),
    "ar_1": (".5:.95", "all", 1),
    "ar_10": (".5:.95", "all", 10),
    "ar_100": (".5:.95", "all", 100),
    "ar_small": (".5:.95", "small", 100),
    "ar_medium": (".5:.95", "medium", 100),
    "ar_large": (".5:.95", "large", 100),
}
NOWHERE = -1.0  # an area outside every range of sizes: pycocotools leaves such a box out


@dataclass(frozen=True)
class CocoNumbers:
    """Average precisions as fractions, by class; NaN where a class has nothing to be found."""

    boxes: np.ndarray  # int [classes], to be found
    ap_50: np.ndarray  # [classes]
    ap: np.ndarray | None  # [classes], mean over IoU 0.5, 0.55, ... 0.95
    curves: np.ndarray  # [classes, 101], precision at recalls 0, 0.01, ... 1, IoU 0.5
    numbers: Mapping[str, float]


def import_pycocotools() -> tuple[Any, Any]:
    """COCO and COCOeval of pycocotools; ImportError says how they come."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise ImportError("COCO's numbers need pycocotools: pip install 'reslab[detect]'") from None
    return COCO, COCOeval


def measure_coco(
    truths: Sequence[GroundTruth], found: Sequence[Detections], classes: int
) -> CocoNumbers:
    """COCO's numbers of detections, one entry an image in both."""
    COCO, COCOeval = import_pycocotools()
    boxes = [row for index, truth in enumerate(truths) for row in truth_rows(index, truth)]
    seen = [row for index, it in enumerate(found) for row in found_rows(index, it)]
    with redirect_stdout(io.StringIO()):  # it prints as it goes
        true, said = (to_pycocotools(COCO(), rows, len(truths), classes) for rows in (boxes, seen))
        judge = COCOeval(true, said, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    # [10 IoUs, 101 recalls, classes] of all sizes, 100 detections an image
    precision = defined(judge.eval["precision"][:, :, :, 0, -1])
    counted = [row["category_id"] for row in boxes if not row["iscrowd"] and row["area"] != NOWHERE]
    return CocoNumbers(
        boxes=np.bincount(counted, minlength=classes),
        ap_50=precision[0].mean(0),
        ap=precision.mean((0, 1)),
        curves=precision[0].T,
        numbers=dict(zip(TWELVE, defined(judge.stats).tolist(), strict=True)),
    )


def defined(values: np.ndarray) -> np.ndarray:
    """pycocotools writes -1 where there is nothing to be found."""
    return np.where(values < 0, np.nan, values)


def to_pycocotools(empty: Any, rows: list[dict[str, Any]], images: int, classes: int) -> Any:
    """Boxes as pycocotools wants them.

    They are numbered from 1: it takes a box numbered 0 for none, as files of annotations do not.
    """
    empty.dataset = {
        "images": [{"id": index} for index in range(images)],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": [row | {"id": number} for number, row in enumerate(rows, 1)],
    }
    empty.createIndex()
    return empty


def truth_rows(index: int, truth: GroundTruth) -> list[dict[str, Any]]:
    """The boxes of an image; difficult ones, which COCO does not know, are left out as VOC does.

    An object's size is the area of its outline where that is known.
    """
    corners = truth.boxes.double()
    sides = corners[:, 2:] - corners[:, :2]
    areas = (sides.prod(1) if truth.areas is None else truth.areas.double()).tolist()
    columns = (
        truth.labels.tolist(), corners[:, :2].tolist(), sides.tolist(), areas,
        truth.crowd.tolist(), truth.difficult.tolist(),
    )  # fmt: skip
    return [
        {
            "image_id": index, "category_id": label, "bbox": corner + side,
            "area": NOWHERE if difficult else area, "iscrowd": int(crowd),
        }
        for label, corner, side, area, crowd, difficult in zip(*columns, strict=True)
    ]  # fmt: skip


def found_rows(index: int, found: Detections) -> list[dict[str, Any]]:
    """The detections of an image."""
    corners = found.boxes.double()
    sides = corners[:, 2:] - corners[:, :2]
    columns = (
        found.labels.tolist(), corners[:, :2].tolist(), sides.tolist(), sides.prod(1).tolist(),
        found.scores.tolist(),
    )  # fmt: skip
    return [
        {"image_id": index, "category_id": label, "bbox": corner + side, "area": area,
         "iscrowd": 0, "score": score}
        for label, corner, side, area, score in zip(*columns, strict=True)
    ]  # fmt: skip


RECALLS = 100  # steps of the curves, as COCO's
PROTOCOL_NAMES = {  # what is typed -> what a report calls it
    "coco": "COCO, pycocotools",
    "voc-2007": "VOC 2007, eleven points, IoU 0.5",
    "voc-2012": "VOC 2012, area, IoU 0.5",
}


@dataclass(frozen=True)
class AveragePrecision:
    """Average precisions in percent, never without their set, protocol and number of images.

    What is not defined, since there is nothing to be found, is NaN, and null in JSON.
    """

    set: str
    protocol: str
    n: int  # images
    map_50: float  # IoU 0.5, mean over the classes that have boxes
    map_50_95: float | None  # the mean over IoU 0.5, 0.55, ... 0.95; None: VOC has no such number
    coco: Mapping[str, float]  # COCO's twelve numbers; none under VOC
    per_class: Sequence[Mapping[str, Any]]  # {"class", "id", "boxes", "detections", "ap_50", ...}
    curves: Sequence[Sequence[float]] = ()  # a class: precision at recalls 0, 1, ... 100 %, IoU 0.5

    @property
    def absent(self) -> list[str]:
        """The classes that the set has no boxes of; they are left out of the means."""
        return [row["class"] for row in self.per_class if not row["boxes"]]

    def __str__(self) -> str:
        numbers = f"mAP@.5 {self.map_50:.2f} %"
        if self.map_50_95 is not None:
            numbers += f", mAP@[.5:.95] {self.map_50_95:.2f} %"
        left_out = f"; {self.left_out()}" if self.absent else ""
        return f"{self.set}: {numbers}  ({self.protocol}, n={self.n}{left_out})"

    def left_out(self) -> str:
        """What the means are not over, in words."""
        return f"{len(self.absent)} of {len(self.per_class)} classes have no boxes, left out"

    def as_dict(self) -> dict[str, Any]:
        """What fits on a line of a log."""
        core = ("set", "protocol", "n", "map_50", "map_50_95")
        coco = (
            {"coco": {name: nan_to_none(it) for name, it in self.coco.items()}} if self.coco else {}
        )
        return {key: getattr(self, key) for key in core} | coco

    def details(self) -> dict[str, Any]:
        """Class by class."""
        rows = [{key: nan_to_none(value) for key, value in row.items()} for row in self.per_class]
        return {"per_class": rows}


def nan_to_none(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def measure(
    images: DetectionSet, found: Sequence[Detections], protocol: str = "coco"
) -> AveragePrecision:
    """What was found in each image of a set, against what is true.

    `found` is in the set's order and its labels are indices into the set's classes.
    """
    if protocol not in PROTOCOL_NAMES:
        raise ValueError(unknown_name("protocol", protocol, PROTOCOL_NAMES))
    must_be_ranked(images, found)
    # pycocotools takes the images by their ids; equal scores then rank as they do there
    order = sorted(range(len(images)), key=lambda index: images.keys[index])
    truths, seen = [images.truths[at] for at in order], [found[at] for at in order]
    if protocol == "coco":
        measured = measure_coco(truths, seen, len(images.classes))
    else:
        measured = measure_voc(truths, seen, len(images.classes), protocol)
    if not measured.boxes.any():
        raise ValueError(f"{images.name} has no boxes to be found: there is nothing to measure")
    return AveragePrecision(
        set=images.name, protocol=PROTOCOL_NAMES[protocol], n=len(images),
        map_50=100 * measured.numbers.get("ap_50", float(np.nanmean(measured.ap_50))),
        map_50_95=100 * measured.numbers["ap"] if "ap" in measured.numbers else None,
        coco={name: 100 * value for name, value in measured.numbers.items()},
        per_class=class_precisions(images, found, measured),
        curves=measured.curves.tolist(),
    )  # fmt: skip


def usual_protocol(layout: str, root: Path, files: Sequence[str]) -> str:
    """The one by which results on a set are published, known by its layout and its images.

    VOC changed its measure in 2010.
    """
    if layout == "COCO":
        return "coco"
    of_2007 = any("VOC2007" in (root / file).parts for file in files[:1])
    return "voc-2007" if of_2007 else "voc-2012"


def must_be_ranked(images: DetectionSet, found: Sequence[Detections]) -> None:
    """ValueError for scores and boxes that cannot be ranked or compared."""
    assert len(found) == len(images), (len(found), len(images))
    for file, seen in zip(images.files, found, strict=True):
        if not (seen.scores.isfinite().all() and seen.boxes.isfinite().all()):
            raise ValueError(f"{file}: a detection has a score or a box that is not a number")


def measure_voc(
    truths: Sequence[GroundTruth], found: Sequence[Detections], classes: int, protocol: str
) -> CocoNumbers:
    """Average precision of each class by one of VOC's two definitions."""
    ranked = rankings(truths, found, classes)
    average = eleven_points if protocol == "voc-2007" else area
    return CocoNumbers(
        boxes=np.array([ranking.positives for ranking in ranked]),
        ap_50=np.array([average(ranking) for ranking in ranked]),
        ap=None,
        curves=np.array([interpolated(ranking, RECALLS) for ranking in ranked]),
        numbers={},
    )


def class_precisions(
    images: DetectionSet, found: Sequence[Detections], measured: CocoNumbers
) -> list[dict[str, Any]]:
    """A row for each class of the set."""
    detections = sum(
        (np.bincount(seen.labels, minlength=len(images.classes)) for seen in found),
        start=np.zeros(len(images.classes), dtype=int),
    )
    rows = []
    for label, (name, key) in enumerate(zip(images.classes, images.ids, strict=True)):
        row = {
            "class": name, "id": key, "boxes": int(measured.boxes[label]),
            "detections": int(detections[label]), "ap_50": 100 * float(measured.ap_50[label]),
        }  # fmt: skip
        if measured.ap is not None:
            row["ap_50_95"] = 100 * float(measured.ap[label])
        rows.append(row)
    return rows
