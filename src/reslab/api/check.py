"""Check a folder of images. A wrong path is refused before torch is imported: that is slow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reslab.api.display import OnEvent, showing
from reslab.data.location import Location, Url, is_table, parse_location
from reslab.runtime.events import Callback, counter

if TYPE_CHECKING:
    from pydantic import JsonValue

    from reslab.data.doctor.findings import Finding


@dataclass(frozen=True)
class FolderCheck:
    """The contents of a folder, and the faults found in it."""

    folder: Location
    images: int
    parts: dict[str, JsonValue]  # train, validation...: layout and classes of each
    contents: str  # one-line description of the parts
    findings: tuple[Finding, ...]

    def __repr__(self) -> str:
        counts = f"{self.count('spoils')} spoil a run, {self.count('remark')} remarks"
        return f"FolderCheck({str(self.folder)!r}: {self.contents or 'no images'}; {counts})"

    def count(self, severity: Literal["spoils", "remark"]) -> int:
        """Return the number of findings that would spoil a run, or that are remarks."""
        return sum(finding.advice.severity == severity for finding in self.findings)

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the check for JSON, with all cases of each finding."""
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


def check(folder: str | Path, *, size: int = 224, on_event: OnEvent = "print") -> FolderCheck:
    """Decode every file in a folder and find faults that would spoil a run, with their remedies.

    `folder` holds images in one subfolder per class, shards (or is their URL), or boxes in COCO's
    or VOC's layout; `size` is the side, in pixels, of the images that a network is trained on.
    Raises ValueError if there is no such folder; all faults of its content are findings.
    """
    with showing(on_event) as callback:
        return run_check(folder, size, callback)


def run_check(folder: str | Path, size: int, on_event: Callback) -> FolderCheck:
    """Do the work of `check`."""
    if size < 1:
        raise ValueError(f"`size` {size}: at least 1 pixel")
    location = parse_location(folder)
    if isinstance(location, Path) and not (location.is_dir() or is_table(location)):
        raise ValueError(f"{folder} {'is not a folder' if location.exists() else 'does not exist'}")
    from reslab.data.boxes.folder import is_detection

    if not isinstance(location, Url) and is_detection(location):
        return check_boxes(location, on_event)
    return check_classes(location, size, on_event)


def check_classes(folder: Location, size: int, on_event: Callback) -> FolderCheck:
    from reslab.data.doctor.findings import diagnose
    from reslab.data.doctor.inspect import inspect_all
    from reslab.data.doctor.scan import scan_folder
    from reslab.data.folder import WHOLE_FOLDER

    scan = scan_folder(folder)
    images = inspect_all(scan, counter(len(scan), "images", on_event))
    parts: dict[str, JsonValue] = {
        part.name: {"folder": part.prefix or ".", "classes": dict(part.classes)}
        for part in scan.parts
    }
    contents = ", ".join(
        f"{sum(part.classes.values()):,} "
        f"{'' if part.name == WHOLE_FOLDER else part.name + ' '}images "
        f"in {len(part.classes):,} classes"
        for part in scan.parts
    )
    return FolderCheck(folder, len(scan), parts, contents, diagnose(scan, images, size))


def check_boxes(folder: Path, on_event: Callback) -> FolderCheck:
    from reslab.data.boxes.folder import all_parts, read_annotations
    from reslab.data.doctor.findings import diagnose_boxes
    from reslab.data.doctor.inspect import inspect_annotated

    annotations = read_annotations(folder)
    annotated = all_parts(annotations)
    count = sum(len(part) for part in annotated)
    images = inspect_annotated(annotated, counter(count, "images", on_event))
    parts: dict[str, JsonValue] = {
        part.name: {
            "layout": part.layout,
            "pictures": len(part),
            "boxes": len(part.objects),
            "classes": [*part.classes.values()],
        }
        for part in annotated
    }
    contents = ", ".join(
        f"{len(part):,} {'' if part is annotations else part.name + ' '}images with "
        f"{len(part.objects):,} boxes of {len(part.classes):,} classes"
        for part in annotated
    )
    return FolderCheck(folder, count, parts, contents, diagnose_boxes(folder, annotated, images))
