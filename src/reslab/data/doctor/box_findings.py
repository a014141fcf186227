"""The doctor for boxes: what in a COCO or VOC folder would spoil a run, and how to mend it."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from reslab.data.boxes.annotations import (
    Annotations,
    box_in_words,
    faulty_boxes,
    missing_images,
    repeated_boxes,
    unknown_classes,
    unknown_in_words,
)
from reslab.data.boxes.folder import DetectionParts
from reslab.data.doctor.box_advice import BOX_ADVICE
from reslab.data.doctor.findings import Case, Finding, equal_rows, in_order_of, made_finding
from reslab.data.doctor.inspect import FORMATS, ImageInfo, ImageTable, inspect
from reslab.data.folder import FolderReader
from reslab.runtime.threads import map_in_order, usable_cores

IMAGES_AHEAD = 4  # files a thread that are read before their turn


def inspect_annotated(parts: DetectionParts, on_progress: Callable[[None], None]) -> ImageTable:
    """Read and decode every image of all parts, one part after the other; `hear` is called after
    each."""
    images = [(part.root, file) for part in parts for file in part.files]
    threads = usable_cores()
    facts = ImageTable(len(images))
    for index, fact in enumerate(
        map_in_order(_inspect_image, images, threads, IMAGES_AHEAD * threads)
    ):
        facts.put(index, fact)
        on_progress(None)
    return facts


def _inspect_image(image: tuple[Path, str]) -> ImageInfo:
    root, file = image
    suffix = os.path.splitext(file)[1].lower()
    try:
        return inspect(FolderReader(str(root)), file, suffix if suffix in FORMATS else "")
    except ValueError:
        return ImageInfo("unreadable", "a name that no file can have")


def diagnose_boxes(folder: Path, parts: DetectionParts, facts: ImageTable) -> tuple[Finding, ...]:
    """All that is found, what spoils a run first."""
    found: list[Finding] = []
    first = 0
    for part in parts:
        found += _of_part(folder, part, facts, first)
        first += len(part)
    found += _image_copies(folder, parts, facts)
    found += _missing_classes(parts)
    return in_order_of(BOX_ADVICE, _together(found))


def _together(found: list[Finding]) -> Iterator[Finding]:
    """One finding a kind, of all parts."""
    for kind in {finding.kind: None for finding in found}:
        cases = (case for finding in found if finding.kind == kind for case in finding.cases)
        yield made_finding(kind, cases)


def _path(folder: Path, part: Annotations, row: int) -> str:
    """An image's name relative to the folder that is checked."""
    return os.path.relpath(part.root / part.files[row], folder)


def _of_part(folder: Path, part: Annotations, facts: ImageTable, first: int) -> Iterator[Finding]:
    for kind in {fault.kind: None for fault in part.faults}:
        faults = (fault for fault in part.faults if fault.kind == kind)
        yield made_finding(kind, (Case((fault.place,), fault.note) for fault in faults))
    yield from _of_images(folder, part, facts, first)

    boxes = {"unknown class": unknown_classes(part)} | faulty_boxes(part)
    boxes["repeated box"] = repeated_boxes(part)
    for kind, rows in boxes.items():
        words = unknown_in_words if kind == "unknown class" else box_in_words
        yield made_finding(kind, map(partial(_box, part, words), rows.tolist()))


def _box(part: Annotations, words: Callable[[Annotations, int], str], at: int) -> Case:
    file = part.files[part.objects.images[at]]
    return Case((part.place(at),), f"{words(part, at)}: {file}")


def _of_images(folder: Path, part: Annotations, facts: ImageTable, first: int) -> Iterator[Finding]:
    missing = set(missing_images(part.root, part.files))
    bare = np.bincount(part.objects.images or [0], minlength=len(part)) == 0
    cases: dict[str, list[Case]] = {}
    for row, file in enumerate(part.files):
        kind, note = _of_image(part, facts, first + row, row)
        if file in missing:
            kind, note = "missing image", ""
        path = (_path(folder, part, row),)
        if kind:
            cases.setdefault(kind, []).append(Case(path, note))
        if bare[row] or not len(part.objects):
            cases.setdefault("no boxes", []).append(Case(path))
    for kind, listed in cases.items():
        yield made_finding(kind, listed)


def _of_image(part: Annotations, facts: ImageTable, index: int, row: int) -> tuple[str, str]:
    if facts.problems[index]:
        return "bad image", facts.reasons[index]
    width, height = facts.sizes[index]
    wide, high = part.sizes[row]
    if (width, height) == (wide, high):
        return "", ""
    return "other size", f"{width} x {height}, annotated as {wide} x {high}"


def _image_copies(folder: Path, parts: DetectionParts, facts: ImageTable) -> Iterator[Finding]:
    """Images that decode to the same pixels; each group of them is one case."""
    paths = [_path(folder, part, row) for part in parts for row in range(len(part))]
    part_of = [number for number, part in enumerate(parts) for _ in range(len(part))]
    rows, starts = equal_rows(facts.pixels, np.flatnonzero(facts.problems == 0))
    cases: dict[str, list[Case]] = {"image in both parts": [], "repeated image": []}
    for first, end in pairwise(starts.tolist()):
        group = sorted(rows[first:end].tolist())
        several = len({part_of[row] for row in group}) > 1
        kind = "image in both parts" if several else "repeated image"
        cases[kind].append(Case(tuple(paths[row] for row in group)))
    for kind, listed in cases.items():
        yield made_finding(kind, listed)


def _missing_classes(parts: DetectionParts) -> Iterator[Finding]:
    """Classes that the part that is trained on has no box of."""
    part = parts.whole if parts.train is None else parts.train
    assert part is not None, "a folder has both parts, or the whole"
    met = set(part.objects.names)
    bare = (name for id_, name in part.classes.items() if id_ not in met)
    yield made_finding("class without boxes", (Case((name,)) for name in bare))
