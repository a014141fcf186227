"""`reslab check`"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.api.display import progress_display
from reslab.api.lines import clock
from reslab.cli.console import AsJson, print_json, print_line, print_rich_table
from reslab.runtime.text import printable

if TYPE_CHECKING:
    from reslab.api.check import FolderCheck
    from reslab.data.doctor.findings import Case, Finding


MARKS = {"refused": "refused", "spoils": "spoils a run", "remark": "remark"}
EFFECTS = {"refused": "does not start", "spoils": "spoilt", "remark": "continues"}
CASES_SHOWN = 3  # most cases per finding, and files per case; --json has all


def check(
    folder: Annotated[
        str,
        typer.Argument(
            help="Images in one subfolder per class or with a table of labels, shards or their "
            "URL, or boxes in COCO, VOC or YOLO layout."
        ),
    ],
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side of the network's training images, in pixels; default: 224, or that of small "
            "images of one size.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Find faults in a data set that would spoil a run.

    Opens the data as training does, and decodes every file. Reports what training would refuse and
    leave out, bad files, duplicates within and across parts and classes, images that are too small,
    classes with too few images and impossible boxes, with the effect of each on a run and how to
    fix it. The exit status is 1 if training would refuse the data or any fault would spoil a run.
    """
    from reslab.api.check import run_check

    began = time.monotonic()
    with progress_display() as on_event:
        checked = run_check(folder, size, on_event)
    if as_json:
        print_json({"folder": str(checked.folder), "size": checked.size} | checked.as_dict())
    else:
        for line in findings_as_text(checked.findings):
            print_line(line)
        if checked.findings:
            print_advice(checked.findings)
        print_line(check_summary(checked, time.monotonic() - began))
    return int(checked.count("refused", "spoils") > 0)


def findings_as_text(findings: "tuple[Finding, ...]") -> Iterator[str]:
    """Yield the lines for each finding: its effect on a run, and its first cases."""
    for finding in findings:
        advice = finding.advice
        mark = MARKS[advice.severity]
        yield f"{finding.kind} ({mark}, {len(finding.cases):,}): {advice.does}"
        for case, _ in zip(finding.cases, range(CASES_SHOWN), strict=False):
            yield f"    {case_in_words(case, quoted=advice.severity == 'refused')}"
        if len(finding.cases) > CASES_SHOWN:
            yield f"    and {len(finding.cases) - CASES_SHOWN:,} more; --json names all"
        yield ""


def case_in_words(case: "Case", *, quoted: bool) -> str:
    """Return the first files of a case and its note, which may be `quoted` from training."""
    note = printable(case.note)
    if note and (case.files == (".",) or (quoted and case.files[0] in case.note)):
        return note
    if quoted and note:
        return f"{printable(case.files[0])}: {note}"
    names = [printable(file) for file in case.files[:CASES_SHOWN]]
    if len(case.files) > CASES_SHOWN:
        names.append(f"{len(case.files) - CASES_SHOWN:,} more")
    return " = ".join(names) + (f"  ({note})" if note else "")


def print_advice(findings: "tuple[Finding, ...]") -> None:
    """Print a table of the findings and their remedies."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("finding", box=SIMPLE_HEAD)
    table.add_column("cases", justify="right")
    table.add_column("a run")
    table.add_column("what to do", overflow="fold")
    for finding in findings:
        severity = finding.advice.severity
        table.add_row(
            finding.kind,
            f"{len(finding.cases):,}",
            EFFECTS[severity],
            finding.advice.fix,
            style=None if severity == "remark" else "red",
        )
    print_rich_table(table)


def check_summary(checked: "FolderCheck", seconds: float) -> str:
    spoils, remarks = checked.count("spoils"), checked.count("remark")
    verdict = "training refuses it" if checked.count("refused") else "nothing spoils a run"
    if spoils:
        spoilt = f"{spoils} {'finding spoils' if spoils == 1 else 'findings spoil'} a run"
        verdict = f"{verdict}, {spoilt}" if checked.count("refused") else spoilt
    if remarks:
        verdict += f", {remarks} {'remark' if remarks == 1 else 'remarks'}"
    folder = printable(str(checked.folder))
    return f"{folder}: {verdict}; {checked.contents or 'no images'}; {clock(seconds)}"
