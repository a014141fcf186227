"""Build detection sets from annotations, or refuse them with their first problem."""

import numpy as np
import torch

from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.box_faults import (
    box_in_words,
    faulty_boxes,
    unknown_classes,
    unknown_in_words,
)
from reslab.data.boxes.conventions import wrong_convention
from reslab.data.boxes.image_files import missing_images, what_lies_in
from reslab.data.boxes.sets import DetectionSet, GroundTruth, GroundTruthTable
from reslab.data.class_folders import FolderReader

# A set with such boxes is refused. Empty boxes are skipped, because COCO's own files have some.
REFUSED = ("not numbers", "swapped corners", "box outside")


def detection_set(part: Annotations, *, alone: bool = False) -> DetectionSet:
    """Build a detection set from annotations; raise ValueError with the first problem.

    `alone` is for evaluating detections from a file: the images need not exist, and boxes stay
    float64, because rounding could move an IoU of exactly 0.9 below its threshold.
    """
    _refuse(part, alone)
    objects = part.objects
    used = np.ones(len(objects), bool)
    used[faulty_boxes(part)["empty box"]] = False
    images = np.array(objects.images, int)
    order = np.flatnonzero(used)[np.argsort(images[used], kind="stable")]
    labels = {name: label for label, name in enumerate(part.classes)}
    dtype = torch.float64 if alone else torch.float32
    table = GroundTruth(
        torch.from_numpy(objects.corners()).to(dtype),
        torch.tensor([labels[name] for name in objects.names], dtype=torch.int64),
        torch.tensor(objects.difficult, dtype=torch.bool),
        torch.tensor(objects.crowd, dtype=torch.bool),
        torch.tensor(objects.areas, dtype=dtype) if objects.areas else None,
        torch.tensor(objects.truncated, dtype=torch.bool) if objects.truncated else None,
    ).take(torch.from_numpy(order))
    counts = np.bincount(images[order], minlength=len(part))
    return DetectionSet(
        part.name,
        part.files,
        GroundTruthTable(table, counts),
        tuple(part.classes.values()),
        tuple(str(name) for name in part.classes),
        FolderReader(str(part.root)),
        part.sizes,
        part.keys,
        tuple(f"{remark.place}: {remark.note}" for remark in part.remarks),
    )


def _refuse(part: Annotations, alone: bool) -> None:
    """Raise ValueError with the first problem and the number of further problems, if any."""
    lines = [f"{problem.place}: {problem.note}" for problem in part.problems]
    if not alone and (problem := wrong_convention(part)):
        raise ValueError(f"{problem.place}: {problem.note}")
    if not alone and (missing := list(missing_images(part.root, part.files))):
        hint, place = what_lies_in(part.root, missing[0]), f"{part.source}: " if part.source else ""
        lines.append(f"{place}{part.root / missing[0]} does not exist; {hint}")
        lines += [f"{part.root / file} does not exist" for file in missing[1:]]
    lines += [f"{part.place(row)}: {unknown_in_words(part, row)}" for row in unknown_classes(part)]
    faulty = faulty_boxes(part)
    for kind in REFUSED:
        lines += (f"{part.place(row)}: {kind} ({box_in_words(part, row)})" for row in faulty[kind])
    if lines:
        more = f"; `reslab check FOLDER` lists {len(lines) - 1:,} more" if len(lines) > 1 else ""
        raise ValueError(f"{' '.join(lines[0].split())}{more}")
    if not part.files:
        raise ValueError(f"{part.source or part.root}: the annotations list no images")
    if not part.classes:
        raise ValueError(
            f"{part.source or part.root}: the annotations have no classes and no objects"
        )
