"""Average precision of detections on a set: COCO's, computed by pycocotools, or VOC's."""

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.sets import Detections, DetectionSet, GroundTruth
from reslab.detection.average_precision.voc import area, eleven_points, interpolated, rankings
from reslab.errors import unknown_name
from reslab.runtime.text import printable

# COCO's twelve numbers in COCO's order: IoU, object size, maximum number of detections per image
COCO_NUMBERS = {
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
PROTOCOL_NAMES = {  # name on the command line -> name in a report
    "coco": "COCO, pycocotools",
    "voc-2007": "VOC 2007, eleven points, IoU 0.5",
    "voc-2012": "VOC 2012, area, IoU 0.5",
}
RECALLS = 100  # recall steps of the curves, as in COCO
IGNORED_AREA = -1.0  # outside every size range, so that pycocotools ignores the box


# precision for one class; in the functional syntax, because "class" is a keyword
ClassPrecision = TypedDict(
    "ClassPrecision",
    {
        "class": str,
        "id": str,
        "boxes": int,
        "detections": int,
        "ap_50": float,  # percent
        "ap_50_95": NotRequired[float],  # not under VOC
    },
)


@dataclass(frozen=True)
class AveragePrecision:
    """Average precisions in percent, with their set, protocol and number of images.

    A number that is undefined because there is nothing to detect is NaN, or null in JSON.
    """

    set_name: str  # "set" in JSON
    protocol: str
    n: int  # images
    map_50: float  # IoU 0.5, mean over the classes with boxes
    map_50_95: float | None  # mean over IoU 0.5, 0.55, ... 0.95; None: VOC has no such number
    # COCO's twelve numbers; empty under VOC
    coco: Mapping[str, float] = field(repr=False)
    per_class: Sequence[ClassPrecision] = field(repr=False)
    # for each class the precision at recalls 0, 1, ... 100 %, IoU 0.5; not in JSON
    curves: Sequence[Sequence[float]] = field(default=(), repr=False)

    @property
    def classes_without_boxes(self) -> list[str]:
        """The classes left out of the means."""
        return [row["class"] for row in self.per_class if not row["boxes"]]

    def __str__(self) -> str:
        numbers = f"mAP@.5 {self.map_50:.2f} %"
        if self.map_50_95 is not None:
            numbers += f", mAP@[.5:.95] {self.map_50_95:.2f} %"
        left_out = ""
        if bare := self.classes_without_boxes:
            left_out = f"; {len(bare)} of {len(self.per_class)} classes left out: no boxes"
        return f"{printable(self.set_name)}: {numbers}  ({self.protocol}, n={self.n}{left_out})"

    def as_dict(self) -> dict[str, Any]:
        """Return the summary for a log line."""
        document = {
            "set": self.set_name,
            "protocol": self.protocol,
            "n": self.n,
            "map_50": self.map_50,
            "map_50_95": self.map_50_95,
        }
        return document | ({"coco": nan_to_none(self.coco)} if self.coco else {})

    def details(self) -> dict[str, Any]:
        """Return the numbers for each class."""
        return {"per_class": [nan_to_none(row) for row in self.per_class]}


def nan_to_none(row: Mapping[str, object]) -> dict[str, Any]:
    """Replace NaN, which JSON does not have, with None."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in row.items()
    }


def measure(
    images: DetectionSet, detections: Sequence[Detections], protocol: str = "coco"
) -> AveragePrecision:
    """Measure the average precision of detections against a set's ground truth.

    `detections` are in the order of the images, and their labels are indices into the set's
    classes. Raise ValueError if the protocol is unknown, a score or a box is not finite, or
    there is nothing to measure.
    """
    if protocol not in PROTOCOL_NAMES:
        raise ValueError(unknown_name("protocol", protocol, PROTOCOL_NAMES))
    must_be_rankable(images, detections)
    # pycocotools processes images by id; the same order breaks ties in score the same way
    keys = images.keys
    order = sorted(range(len(images)), key=lambda row: (isinstance(keys[row], str), keys[row]))
    truths = [images.truths[index] for index in order]
    ordered = [detections[index] for index in order]
    if protocol == "coco":
        measured = measure_coco(truths, ordered, len(images.classes))
    else:
        measured = measure_voc(truths, ordered, len(images.classes), protocol)
    if not measured.boxes.any():
        raise ValueError(f"{images.name} has no boxes to detect: there is nothing to measure")
    if protocol == "coco":
        map_50, map_50_95 = 100 * measured.coco["ap_50"], 100 * measured.coco["ap"]
    else:
        map_50, map_50_95 = 100 * float(np.nanmean(measured.ap_50)), None
    return AveragePrecision(
        set_name=images.name,
        protocol=PROTOCOL_NAMES[protocol],
        n=len(images),
        map_50=map_50,
        map_50_95=map_50_95,
        coco={name: 100 * value for name, value in measured.coco.items()},
        per_class=rows_by_class(images, detections, measured),
        curves=measured.curves.tolist(),
    )


def usual_protocol(part: Annotations) -> str:
    """Return the protocol under which results on a data set are usually published.

    VOC changed its definition of average precision in 2010.
    """
    if part.layout == "COCO":
        return "coco"
    of_2007 = any("VOC2007" in (part.root.resolve() / file).parts for file in part.files[:1])
    return "voc-2007" if of_2007 else "voc-2012"


def must_be_rankable(images: DetectionSet, detections: Sequence[Detections]) -> None:
    """Raise ValueError if a score or a box is not finite."""
    assert len(detections) == len(images), (len(detections), len(images))
    for file, detected in zip(images.files, detections, strict=True):
        if not (detected.scores.isfinite().all() and detected.boxes.isfinite().all()):
            raise ValueError(f"{file}: a detection has a score or a box that is not finite")


@dataclass(frozen=True)
class ClassPrecisions:
    """Average precisions per class, as fractions; NaN where a class has nothing to detect."""

    boxes: np.ndarray  # int [classes], number of boxes to detect
    ap_50: np.ndarray  # [classes]
    ap: np.ndarray | None  # [classes], mean over IoU 0.5, 0.55, ... 0.95; None under VOC
    curves: np.ndarray  # [classes, 101], precision at recalls 0, 0.01, ... 1, IoU 0.5
    coco: Mapping[str, float]  # COCO's twelve numbers; empty under VOC


def rows_by_class(
    images: DetectionSet, detections: Sequence[Detections], measured: ClassPrecisions
) -> list[ClassPrecision]:
    """Return the rows of a report, one for each class of the set."""
    counts = np.zeros(len(images.classes), dtype=int)
    for detected in detections:
        counts += np.bincount(detected.labels, minlength=len(images.classes))
    rows: list[ClassPrecision] = []
    for label, (name, id_) in enumerate(zip(images.classes, images.ids, strict=True)):
        row: ClassPrecision = {
            "class": name,
            "id": id_,
            "boxes": int(measured.boxes[label]),
            "detections": int(counts[label]),
            "ap_50": 100 * float(measured.ap_50[label]),
        }
        if measured.ap is not None:
            row["ap_50_95"] = 100 * float(measured.ap[label])
        rows.append(row)
    return rows


def measure_voc(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], classes: int, protocol: str
) -> ClassPrecisions:
    """Measure each class under one of VOC's two definitions."""
    ranked = rankings(truths, detections, classes)
    average = eleven_points if protocol == "voc-2007" else area
    return ClassPrecisions(
        boxes=np.array([ranking.positives for ranking in ranked]),
        ap_50=np.array([average(ranking) for ranking in ranked]),
        ap=None,
        curves=np.array([interpolated(ranking, RECALLS) for ranking in ranked]),
        coco={},
    )


def import_pycocotools() -> tuple[Any, Any]:
    """Import COCO and COCOeval from pycocotools; raise ImportError with a hint if it is missing."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise ImportError(
            "COCO's average precision needs pycocotools: pip install 'reslab[detect]'"
        ) from None
    return COCO, COCOeval


def measure_coco(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], classes: int
) -> ClassPrecisions:
    """Measure each class under COCO's definition."""
    COCO, COCOeval = import_pycocotools()
    boxes = [row for index, truth in enumerate(truths) for row in truth_rows(index, truth)]
    ranked = [row for index, image in enumerate(detections) for row in detection_rows(index, image)]
    with redirect_stdout(io.StringIO()):  # COCOeval prints progress
        evaluation = COCOeval(
            to_pycocotools(COCO(), boxes, len(truths), classes),
            to_pycocotools(COCO(), ranked, len(truths), classes),
            "bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # [10 IoUs, 101 recalls, classes] for all sizes, 100 detections per image
    precision = undefined_to_nan(evaluation.eval["precision"][:, :, :, 0, -1])
    counted = [
        row["category_id"] for row in boxes if not row["iscrowd"] and row["area"] != IGNORED_AREA
    ]
    return ClassPrecisions(
        boxes=np.bincount(counted, minlength=classes),
        ap_50=precision[0].mean(0),
        ap=precision.mean((0, 1)),
        curves=precision[0].T,
        coco=dict(zip(COCO_NUMBERS, undefined_to_nan(evaluation.stats).tolist(), strict=True)),
    )


def undefined_to_nan(values: np.ndarray) -> np.ndarray:
    """Replace -1, which pycocotools reports where there is nothing to detect, with NaN."""
    return np.where(values < 0, np.nan, values)


def to_pycocotools(coco: Any, rows: list[dict[str, Any]], images: int, classes: int) -> Any:
    """Fill an empty COCO object with boxes and return it.

    Boxes are numbered from 1: pycocotools takes id 0 to mean no match.
    """
    coco.dataset = {
        "images": [{"id": index} for index in range(images)],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": [row | {"id": number} for number, row in enumerate(rows, 1)],
    }
    coco.createIndex()
    return coco


def truth_rows(index: int, truth: GroundTruth) -> list[dict[str, Any]]:
    """Return the boxes of an image as COCO annotations.

    Difficult boxes, which COCO does not have, are ignored as in VOC. The size of an object is the
    area of its segmentation, if known, otherwise the area of its box.
    """
    areas = box_areas(truth.boxes) if truth.areas is None else truth.areas.double()
    areas = torch.where(truth.difficult, IGNORED_AREA, areas)
    crowd = truth.crowd.int().tolist()
    return coco_rows(index, truth.boxes, truth.labels, area=areas.tolist(), iscrowd=crowd)


def detection_rows(index: int, image: Detections) -> list[dict[str, Any]]:
    """Return the detections in an image as COCO results."""
    columns = {"area": box_areas(image.boxes).tolist(), "iscrowd": [0] * len(image)}
    return coco_rows(index, image.boxes, image.labels, score=image.scores.tolist(), **columns)


def box_areas(boxes: Tensor) -> Tensor:
    return (boxes.double()[:, 2:] - boxes.double()[:, :2]).prod(1)


def coco_rows(index: int, boxes: Tensor, labels: Tensor, **columns: list) -> list[dict[str, Any]]:
    """Return one row per box, x y width height, with further values from `columns`."""
    corners = boxes.double()
    sized = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    columns |= {"category_id": labels.tolist(), "bbox": sized.tolist()}
    rows = zip(*columns.values(), strict=True)
    return [{"image_id": index} | dict(zip(columns, row, strict=True)) for row in rows]
