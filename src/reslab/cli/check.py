"""`reslab check`"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.console import clock, counting, print_json, print_line, printable

if TYPE_CHECKING:
    from reslab.data.doctor.findings import Case, Finding
    from reslab.data.location import Location


CASES_SHOWN = 3  # cases of a finding, and files of a case; --json has them all
WIDTH = 200  # of the table in a pipe, which has no edge to wrap at


@dataclass(frozen=True)
class Checked:
    """What a folder holds, and what was found in it."""

    folder: "Location"
    images: int
    parts: dict[str, dict[str, Any]]  # for --json
    contents: str  # in words
    findings: "tuple[Finding, ...]"


def check(
    folder: Annotated[
        str, typer.Argument(help="Images, a class a subfolder; shards, or their URL; COCO; VOC.")
    ],
    size: Annotated[
        int, typer.Option(min=1, help="The side of the net's images, in pixels.")
    ] = 224,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> int:
    """Find what would spoil a run on a folder of images, and how to mend it.

    Every file is decoded. Bad files, copies within and across parts and classes, images too
    small, classes too few; of COCO and VOC also boxes that cannot be: named, with what each does
    to a run. The exit status is 1 if something would spoil a run.
    """
    from reslab.data.boxes.folder import is_detection
    from reslab.data.location import Url, parse_location

    place = parse_location(folder)
    began = time.monotonic()
    if not isinstance(place, Url) and is_detection(place):
        checked = check_boxes(place)
    else:
        checked = check_classes(place, size)
    if as_json:
        print_json(as_document(checked, size))
    else:
        for line in findings_as_text(checked.findings):
            print_line(line)
        if checked.findings:
            print_advice(checked.findings)
        print_line(check_summary(checked, time.monotonic() - began))
    return int(any(finding.advice.severity == "spoils" for finding in checked.findings))


def check_classes(folder: "Location", size: int) -> Checked:
    """Images to classify."""
    from reslab.data.doctor.findings import diagnose
    from reslab.data.doctor.inspect import inspect_all
    from reslab.data.doctor.scan import scan_folder
    from reslab.data.folder import WHOLE_FOLDER

    scan = scan_folder(folder)
    with counting(len(scan), "images") as on_progress:
        infos = inspect_all(scan, on_progress)
    parts = {
        part.name: {"folder": part.prefix or ".", "classes": part.classes} for part in scan.parts
    }
    contents = ", ".join(
        f"{sum(part.classes.values()):,} "
        f"{'' if part.name == WHOLE_FOLDER else part.name + ' '}images "
        f"in {len(part.classes):,} classes"
        for part in scan.parts
    )
    return Checked(folder, len(scan), parts, contents, diagnose(scan, infos, size))


def check_boxes(folder: Path) -> Checked:
    """Images with boxes, in COCO's or VOC's layout."""
    from reslab.data.boxes.folder import all_parts, read_annotations
    from reslab.data.doctor.findings import diagnose_boxes
    from reslab.data.doctor.inspect import inspect_annotated

    annotations = read_annotations(folder)
    annotated = all_parts(annotations)
    images = sum(len(part) for part in annotated)
    with counting(images, "images") as on_progress:
        infos = inspect_annotated(annotated, on_progress)
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
    return Checked(folder, images, parts, contents, diagnose_boxes(folder, annotated, infos))


def as_document(checked: Checked, size: int) -> dict[str, Any]:
    """All that was found, with the names of all files."""
    findings = checked.findings
    return {
        "folder": str(checked.folder),
        "size": size,
        "pictures": checked.images,
        "spoils": count(findings, "spoils"),
        "remarks": count(findings, "remark"),
        "parts": checked.parts,
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.advice.severity,
                "does": finding.advice.does,
                "fix": finding.advice.fix,
                "count": len(finding.cases),
                "cases": [{"files": list(case.files), "note": case.note} for case in finding.cases],
            }
            for finding in findings
        ],
    }


def findings_as_text(findings: "tuple[Finding, ...]") -> Iterator[str]:
    """Each finding with what it does to a run, and its first cases."""
    for finding in findings:
        advice = finding.advice
        mark = {"spoils": "spoils a run", "remark": "remark"}[advice.severity]
        yield f"{finding.kind} ({mark}, {len(finding.cases):,}): {advice.does}"
        for case, _ in zip(finding.cases, range(CASES_SHOWN), strict=False):
            yield f"    {case_in_words(case)}"
        if len(finding.cases) > CASES_SHOWN:
            yield f"    and {len(finding.cases) - CASES_SHOWN:,} more; --json names all"
        yield ""


def case_in_words(case: "Case") -> str:
    """The files of a case, the first few of many, and what is said of them."""
    names = [printable(file) for file in case.files[:CASES_SHOWN]]
    if len(case.files) > CASES_SHOWN:
        names.append(f"{len(case.files) - CASES_SHOWN:,} more")
    return " = ".join(names) + (f"  ({printable(case.note)})" if case.note else "")


def print_advice(findings: "tuple[Finding, ...]") -> None:
    """The table of what to do."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table("finding", box=SIMPLE_HEAD)
    table.add_column("cases", justify="right")
    table.add_column("a run")
    table.add_column("what to do", overflow="fold")
    for finding in findings:
        advice = finding.advice
        spoils = advice.severity == "spoils"
        table.add_row(
            finding.kind,
            f"{len(finding.cases):,}",
            "spoilt" if spoils else "goes on",
            advice.fix,
            style="red" if spoils else None,
        )
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)


def check_summary(checked: Checked, seconds: float) -> str:
    """One line at the end."""
    findings = checked.findings
    spoils, remarks = count(findings, "spoils"), count(findings, "remark")
    verdict = "nothing spoils a run"
    if spoils:
        verdict = f"{spoils} {'finding spoils' if spoils == 1 else 'findings spoil'} a run"
    if remarks:
        verdict += f", {remarks} {'remark' if remarks == 1 else 'remarks'}"
    folder = printable(str(checked.folder))
    return f"{folder}: {verdict}; {checked.contents or 'no images'}; {clock(seconds)}"


def count(findings: "tuple[Finding, ...]", severity: str) -> int:
    """How many kinds of that severity were found."""
    return sum(finding.advice.severity == severity for finding in findings)
