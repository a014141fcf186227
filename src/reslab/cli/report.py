"""`reslab report`"""

from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.console import say, say_json


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished run folders.")],
    out: Annotated[Path, typer.Option(help="Where the page, table and figures go.")] = Path(
        "report"
    ),
    as_json: Annotated[
        bool, typer.Option("--json", help="The results as one JSON document.")
    ] = False,
) -> None:
    """Make one page of any finished runs: figures, table, recipes, environment, departures."""
    from reslab.study.detection import read_detector
    from reslab.study.detection_page import write_detectors
    from reslab.study.records import read_record, task_of
    from reslab.study.report import write_report

    title, question = "Report", "What did these runs come to?"
    if task_of(runs) == "detection":
        records = [read_detector(run) for run in runs]
        page = write_detectors(records, out, title, question)
    else:
        records = [read_record(run) for run in runs]
        page = write_report(records, out, title, question)
    if as_json:
        say_json({"report": str(page), "runs": [{"run": str(r.path), **r.result} for r in records]})
    else:
        say(page.with_name("table.md").read_text())
        say(f"report: {page}")
