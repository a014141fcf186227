"""`reslab check`"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.console import clock, counting, printable, say, say_json

if TYPE_CHECKING:
    from reslab.data.check import Case, Finding
    from reslab.data.listing import Listing

SHOWN = 3  # cases of a finding, and files of a case; --json has them all
WIDTH = 200  # of the table in a pipe, which has no edge to wrap at


def check(
    folder: Annotated[Path, typer.Argument(help="Pictures, a class a subfolder; or shards.")],
    size: Annotated[
        int, typer.Option(min=1, help="The side of the net's pictures, in pixels.")
    ] = 224,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> int:
    """Find what would spoil a run on a folder of pictures, and how to mend it.

    Every file is decoded. Bad files, copies within and across parts and classes, pictures too
    small, classes too few: named, with what each does to a run. The exit status is 1 if something
    would spoil a run.
    """
    from reslab.data.check import diagnose
    from reslab.data.facts import gather
    from reslab.data.listing import list_pictures

    began = time.monotonic()
    listing = list_pictures(folder)
    with counting(len(listing), "pictures") as hear:
        facts = gather(listing, hear)
    findings = diagnose(listing, facts, size)
    if as_json:
        say_json(as_document(listing, findings, size))
    else:
        for line in as_text(findings):
            say(line)
        if findings:
            on_screen(findings)
        say(summary(listing, findings, time.monotonic() - began))
    return int(any(finding.advice.severity == "spoils" for finding in findings))


def as_document(listing: "Listing", findings: "tuple[Finding, ...]", size: int) -> dict[str, Any]:
    """All that was found, with the names of all files."""
    return {
        "folder": str(listing.folder),
        "size": size,
        "pictures": len(listing),
        "spoils": count(findings, "spoils"),
        "remarks": count(findings, "remark"),
        "parts": {
            part.name: {"folder": part.prefix or ".", "classes": part.classes}
            for part in listing.parts
        },
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


def as_text(findings: "tuple[Finding, ...]") -> Iterator[str]:
    """Each finding with what it does to a run, and its first cases."""
    for finding in findings:
        advice = finding.advice
        mark = {"spoils": "spoils a run", "remark": "remark"}[advice.severity]
        yield f"{finding.kind} ({mark}, {len(finding.cases):,}): {advice.does}"
        for case, _ in zip(finding.cases, range(SHOWN), strict=False):
            yield f"    {in_words(case)}"
        if len(finding.cases) > SHOWN:
            yield f"    and {len(finding.cases) - SHOWN:,} more; --json names all"
        yield ""


def in_words(case: "Case") -> str:
    """The files of a case, the first few of many, and what is said of them."""
    names = [printable(file) for file in case.files[:SHOWN]]
    if len(case.files) > SHOWN:
        names.append(f"{len(case.files) - SHOWN:,} more")
    return " = ".join(names) + (f"  ({printable(case.note)})" if case.note else "")


def on_screen(findings: "tuple[Finding, ...]") -> None:
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


def summary(listing: "Listing", findings: "tuple[Finding, ...]", seconds: float) -> str:
    """One line at the end."""
    from reslab.data.listing import WHOLE

    pictures = ", ".join(
        f"{sum(part.classes.values()):,} {'' if part.name == WHOLE else part.name + ' '}pictures "
        f"in {len(part.classes):,} classes"
        for part in listing.parts
    )
    spoils, remarks = count(findings, "spoils"), count(findings, "remark")
    verdict = "nothing spoils a run"
    if spoils:
        verdict = f"{spoils} {'finding spoils' if spoils == 1 else 'findings spoil'} a run"
    if remarks:
        verdict += f", {remarks} {'remark' if remarks == 1 else 'remarks'}"
    folder = printable(str(listing.folder))
    return f"{folder}: {verdict}; {pictures or 'no pictures'}; {clock(seconds)}"


def count(findings: "tuple[Finding, ...]", severity: str) -> int:
    """How many kinds of that severity were found."""
    return sum(finding.advice.severity == severity for finding in findings)
