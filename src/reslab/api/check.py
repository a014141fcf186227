"""Check a folder of images. A wrong path is refused before torch is imported: that is slow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reslab.api.display import OnEvent, showing
from reslab.data.location import Location, can_be_opened, parse_location
from reslab.runtime.events import Callback, counter

if TYPE_CHECKING:
    from pydantic import JsonValue

    from reslab.api.training_data import TrainingData
    from reslab.data.boxes.annotations import Annotations
    from reslab.data.doctor.advice import Severity
    from reslab.data.doctor.findings import Finding
    from reslab.data.doctor.scan import FolderScan


USUAL_SIZE = 224  # side of the training images of Table 1's nets, in pixels (Sec. 3.4)


@dataclass(frozen=True)
class FolderCheck:
    """The contents of a folder, and the faults found in it."""

    folder: Location
    images: int
    parts: dict[str, JsonValue]  # train, validation...: layout and classes of each
    contents: str  # one-line description of the parts
    findings: tuple[Finding, ...]
    size: int = USUAL_SIZE  # of the training images that the images were checked for, in pixels

    def __repr__(self) -> str:
        refused = "training refuses it, " if self.count("refused") else ""
        counts = f"{refused}{self.count('spoils')} spoil a run, {self.count('remark')} remarks"
        return f"FolderCheck({str(self.folder)!r}: {self.contents or 'no images'}; {counts})"

    def count(self, *severities: Severity) -> int:
        """Return the number of findings for which training refuses the folder ("refused"), that
        would spoil a run ("spoils"), or that are remarks ("remark")."""
        return sum(finding.advice.severity in severities for finding in self.findings)

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the check for JSON, with all cases of each finding."""
        return {
            "pictures": self.images,
            "spoils": self.count("refused", "spoils"),
            "remarks": self.count("remark"),
            "parts": self.parts,
            "findings": [
                {
                    "kind": finding.kind,
                    "severity": finding.advice.severity,
                    "does": finding.advice.does,
                    "fix": finding.advice.fix,
                    "count": len(finding.cases),
                    "cases": [
                        {"files": list(case.files), "note": case.note} for case in finding.cases
                    ],
                }
                for finding in self.findings
            ],
        }


def check(
    folder: str | Path, *, size: int | None = None, on_event: OnEvent = "print"
) -> FolderCheck:
    """Decode every file in a folder and find faults that would spoil a run, with their remedies.

    `folder` holds images in one subfolder per class or with a table of labels (or is the table),
    shards (or is their URL), or boxes in COCO, VOC or YOLO layout; `size` is the side, in pixels,
    of the images that a network is trained on: by default 224, or that of the images themselves if
    all are squares of one size up to 64, as own-resnet20 and its like need them. Raise ValueError
    if there is no such folder; all faults of its content are findings, and if training refuses the
    folder, its message is one of them.
    """
    with showing(on_event) as callback:
        return run_check(folder, size, callback)


def run_check(folder: str | Path, size: int | None, on_event: Callback) -> FolderCheck:
    """Do the work of `check`."""
    if size is not None and size < 1:
        raise ValueError(f"`size` {size}: at least 1 pixel")
    location = parse_location(folder)
    if isinstance(location, Path) and not can_be_opened(location):
        raise ValueError(f"{folder} {'is not a folder' if location.exists() else 'does not exist'}")
    if isinstance(location, Path) and holds_boxes(location):
        return check_boxes(location, on_event)
    return check_classes(location, size, on_event)


def holds_boxes(place: Path) -> bool:
    """Return whether there are box annotations, which may be malformed."""
    from reslab.data.boxes.folder import is_detection

    try:
        return is_detection(place)
    except ValueError:  # a detector's run gives the reason
        return True


def check_classes(folder: Location, size: int | None, on_event: Callback) -> FolderCheck:
    """Check images to classify."""
    from reslab.api.training_data import (
        open_images,
        refusal_of_bad_files,
        refusal_of_boxes,
    )
    from reslab.data.doctor.findings import diagnose, with_training
    from reslab.data.doctor.inspect import inspect_all
    from reslab.data.doctor.scan import scan_folder
    from reslab.data.left_out import count_of
    from reslab.data.parts import WHOLE_FOLDER
    from reslab.data.small_images import common_side

    opened = open_images(folder)
    scan = scan_folder(folder)
    images = inspect_all(scan, counter(len(scan), "images", on_event))
    classes = counts_by_class(scan, opened)
    parts: dict[str, JsonValue] = {
        part.name: {"folder": part.prefix or ".", "classes": dict(classes[part.name])}
        for part in scan.parts
    }
    contents = ", ".join(
        f"{count_of(sum(counts.values()), words_for(name, WHOLE_FOLDER))} "
        f"in {count_of(len(counts), 'class')}"
        for name, counts in classes.items()
        if counts
    )
    notes = [note for note in opened.notes if note not in scan.detailed]
    good = [info for infos in images for info in infos if not info.problem]
    side = common_side((info.width, info.height) for info in good)
    if side and size is None:
        contents += f", all {side} x {side}: checked as they are, for own-resnet20 and its like"
    size = size or side or USUAL_SIZE
    bad = {
        file
        for part, infos in zip(scan.parts, images, strict=True)
        for file, info in zip(part.images.files, infos, strict=True)
        if info.problem and part.name != "validation"
    }
    refusal = opened.refusal or (refusal_of_bad_files(folder, bad) if bad else "")
    refusals = [*refusal_of_boxes(folder), refusal] if refusal else []
    findings = with_training(diagnose(scan, images, size), refusals, notes)
    count = sum(sum(counts.values()) for counts in classes.values())
    return FolderCheck(folder, count, parts, contents + split_in_words(opened), findings, size)


def counts_by_class(scan: FolderScan, opened: TrainingData) -> dict[str, dict[str, int]]:
    """Return the images per class of each part: as training counts them, unless it refuses them."""
    if opened.refusal:
        return {part.name: part.classes for part in scan.parts}
    if opened.divided:
        (part,) = scan.parts
        train, validation = (opened.parts[name].classes for name in ("train", "validation"))
        return {part.name: {id_: train[id_] + validation[id_] for id_ in train}}
    return {
        name: {id_: count for id_, count in part.classes.items() if count or name == "train"}
        for name, part in opened.parts.items()
    }


def boxes_by_part(annotated: tuple[Annotations, ...], opened: TrainingData) -> dict[str, int]:
    """Return the number of boxes of each part, without boxes that training leaves out."""
    if opened.refusal:
        return {part.name: len(part.objects) for part in annotated}
    counts = [sum(part.classes.values()) for part in opened.parts.values()]
    if opened.divided:
        counts = [sum(counts)]
    return {part.name: boxes for part, boxes in zip(annotated, counts, strict=True)}


def words_for(part: str, whole: str) -> str:
    """Return "train image" or the like for counting the images of a part, or of the whole."""
    return "image" if part == whole else f"{part} image"


def split_in_words(opened: TrainingData) -> str:
    """Return how a run splits undivided data; "" for data with parts, and if it does not start."""
    if not opened.divided:
        return ""
    train, validation = (opened.parts[name].images for name in ("train", "validation"))
    return f" ({train:,} for training, {validation:,} for validation)"


def check_boxes(folder: Path, on_event: Callback) -> FolderCheck:
    """Check images with boxes."""
    from reslab.api.training_data import open_boxes
    from reslab.data.boxes.folder import all_parts
    from reslab.data.doctor.findings import diagnose_boxes, with_training
    from reslab.data.doctor.inspect import inspect_annotated
    from reslab.data.left_out import count_of

    opened, annotations = open_boxes(folder)
    annotated = all_parts(annotations) if annotations else ()
    count = sum(len(part) for part in annotated)
    images = inspect_annotated(annotated, counter(count, "images", on_event))
    boxes = boxes_by_part(annotated, opened)
    parts: dict[str, JsonValue] = {
        part.name: {
            "layout": part.layout,
            "pictures": len(part),
            "boxes": boxes[part.name],
            "classes": [*part.classes.values()],
        }
        for part in annotated
    }
    whole = annotated[0].name if len(annotated) == 1 else ""
    contents = ", ".join(
        f"{count_of(len(part), words_for(part.name, whole))} with "
        f"{count_of(boxes[part.name], 'box')} of {count_of(len(part.classes), 'class')}"
        for part in annotated
    )
    detailed = {f"{remark.place}: {remark.note}" for part in annotated for remark in part.remarks}
    notes = [note for note in opened.notes if note not in detailed]
    refusals = [opened.refusal] if opened.refusal else []
    findings = with_training(diagnose_boxes(folder, annotated, images), refusals, notes)
    return FolderCheck(folder, count, parts, contents + split_in_words(opened), findings)
