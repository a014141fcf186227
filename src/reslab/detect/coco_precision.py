"""Average precision as COCO measures it, by the code of COCO's authors."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from reslab.data.boxes import Detections, Truth

# COCO's twelve numbers in its order: IoU, size of the objects, detections a picture at most
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
class Measured:
    """Average precisions as fractions, by class; NaN where a class has nothing to be found."""

    boxes: np.ndarray  # int [classes], to be found
    ap_50: np.ndarray  # [classes]
    ap: np.ndarray | None  # [classes], mean over IoU 0.5, 0.55, ... 0.95
    curves: np.ndarray  # [classes, 101], precision at recalls 0, 0.01, ... 1, IoU 0.5
    numbers: Mapping[str, float]


def authors_code() -> tuple[Any, Any]:
    """COCO and COCOeval of pycocotools; ImportError says how they come."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise ImportError("COCO's numbers need pycocotools: pip install 'reslab[detect]'") from None
    return COCO, COCOeval


def measure_coco(truths: Sequence[Truth], found: Sequence[Detections], classes: int) -> Measured:
    """COCO's numbers of detections, one entry a picture in both."""
    COCO, COCOeval = authors_code()
    boxes = [row for index, truth in enumerate(truths) for row in truth_rows(index, truth)]
    seen = [row for index, it in enumerate(found) for row in found_rows(index, it)]
    with redirect_stdout(io.StringIO()):  # it prints as it goes
        true, said = (as_coco(COCO(), rows, len(truths), classes) for rows in (boxes, seen))
        judge = COCOeval(true, said, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    # [10 IoUs, 101 recalls, classes] of all sizes, 100 detections a picture
    precision = defined(judge.eval["precision"][:, :, :, 0, -1])
    counted = [row["category_id"] for row in boxes if not row["iscrowd"] and row["area"] != NOWHERE]
    return Measured(
        boxes=np.bincount(counted, minlength=classes),
        ap_50=precision[0].mean(0),
        ap=precision.mean((0, 1)),
        curves=precision[0].T,
        numbers=dict(zip(TWELVE, defined(judge.stats).tolist(), strict=True)),
    )


def defined(values: np.ndarray) -> np.ndarray:
    """pycocotools writes -1 where there is nothing to be found."""
    return np.where(values < 0, np.nan, values)


def as_coco(empty: Any, rows: list[dict[str, Any]], pictures: int, classes: int) -> Any:
    """Boxes as pycocotools wants them.

    They are numbered from 1: it takes a box numbered 0 for none, as files of annotations do not.
    """
    empty.dataset = {
        "images": [{"id": index} for index in range(pictures)],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": [row | {"id": number} for number, row in enumerate(rows, 1)],
    }
    empty.createIndex()
    return empty


def truth_rows(index: int, truth: Truth) -> list[dict[str, Any]]:
    """The boxes of a picture; difficult ones, which COCO does not know, are left out as VOC does.

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
    """The detections of a picture."""
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
