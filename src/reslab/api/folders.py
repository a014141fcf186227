"""Check, pack and write folders of images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reslab.data.boxes import digit_scenes
from reslab.data.boxes.folder import all_parts, is_detection, read_annotations
from reslab.data.doctor.findings import Finding, diagnose, diagnose_boxes
from reslab.data.doctor.inspect import inspect_all, inspect_annotated
from reslab.data.doctor.scan import scan_folder
from reslab.data.folder import WHOLE_FOLDER, open_folder_parts
from reslab.data.location import Location, Url, parse_location
from reslab.data.shards.writer import JPEG_QUALITY, SHARD_SIZE, Packed, Packing, pack_sets
from reslab.runtime.events import Callback, counter, silent


@dataclass(frozen=True)
class FolderCheck:
    """The contents of a folder, and the faults found in it."""

    folder: Location
    images: int
    parts: dict[str, dict[str, Any]]  # train, validation...: layout and classes of each
    contents: str  # one-line description of the parts
    findings: tuple[Finding, ...]

    def count(self, severity: str) -> int:
        return sum(finding.advice.severity == severity for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        return {
            "pictures": self.images,
            "spoils": self.count("spoils"),
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


def check(folder: str, *, size: int = 224, on_event: Callback = silent) -> FolderCheck:
    """Decode every file in a folder and diagnose faults that would spoil a run.

    `folder` holds images in one subfolder per class, shards (or is their URL), or boxes in COCO's
    or VOC's layout; `size` is the side, in pixels, of the images that a network is trained on.
    """
    location = parse_location(folder)
    if not isinstance(location, Url) and is_detection(location):
        return check_boxes(location, on_event)
    return check_classes(location, size, on_event)


def check_classes(folder: Location, size: int, on_event: Callback) -> FolderCheck:

    scan = scan_folder(folder)
    images = inspect_all(scan, counter(len(scan), "images", on_event))
    parts = {
        part.name: {"folder": part.prefix or ".", "classes": part.classes} for part in scan.parts
    }
    contents = ", ".join(
        f"{sum(part.classes.values()):,} "
        f"{'' if part.name == WHOLE_FOLDER else part.name + ' '}images "
        f"in {len(part.classes):,} classes"
        for part in scan.parts
    )
    return FolderCheck(folder, len(scan), parts, contents, diagnose(scan, images, size))


def check_boxes(folder: Path, on_event: Callback) -> FolderCheck:

    annotations = read_annotations(folder)
    annotated = all_parts(annotations)
    count = sum(len(part) for part in annotated)
    images = inspect_annotated(annotated, counter(count, "images", on_event))
    parts = {
        part.name: {
            "layout": part.layout,
            "pictures": len(part),
            "boxes": len(part.objects),
            "classes": list(part.classes.values()),
        }
        for part in annotated
    }
    contents = ", ".join(
        f"{len(part):,} {'' if part is annotations else part.name + ' '}images with "
        f"{len(part.objects):,} boxes of {len(part.classes):,} classes"
        for part in annotated
    )
    return FolderCheck(folder, count, parts, contents, diagnose_boxes(folder, annotated, images))


def pack(
    folder: Path,
    out: Path,
    *,
    shorter_side: int | None = None,
    shard_size: int | None = None,
    quality: int | None = None,
    on_event: Callback = silent,
) -> tuple[list[Packed], Packing]:
    """Pack a folder of images, one subfolder per class, into tar shards of `shard_size` MB.

    Images are copied unchanged unless they are larger than `shorter_side`; those are reduced and
    encoded as JPEG with `quality`.
    """
    if quality and not shorter_side:
        raise ValueError("--quality is that of reduced images: give --shorter-side too")
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{out} lies in {folder}, where it would become a class; name another")
    packing = Packing(shorter_side, quality or JPEG_QUALITY, shard_size or SHARD_SIZE)
    parts = open_folder_parts(folder)
    on_image = counter(sum(map(len, parts.values())), "images", on_event)
    return pack_sets(parts, out, packing, lambda bad: on_image(str(bad) if bad else None)), packing


def write_scenes(
    out: Path, *, train: int, test: int, seed: int = 0, on_event: Callback = silent
) -> None:
    """Generate digit-scenes into a new folder in COCO's layout."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: name a new folder")
    sets = digit_scenes.digit_scenes(train=train, test=test, seed=seed)
    digit_scenes.save_scenes(out, sets, counter(train + test, "scenes", on_event))
