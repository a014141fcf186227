"""Write the page of a study that was stopped: curves and errors so far."""

from collections.abc import Sequence
from pathlib import Path

from reslab.detection.recipe import DetectionRecipe
from reslab.studies.page.classifiers import ERROR_CAPTION, SEED_MEANS
from reslab.studies.page.figures import draw_errors, draw_learning
from reslab.studies.page.page import Heading, Page, write_html
from reslab.studies.page.tables import Table, table_of
from reslab.studies.records import Record, SeedGroup
from reslab.training.curves import Curve
from reslab.training.recipe import Recipe

LEARNING_CAPTION = (
    "Left: mAP@.5 over iterations. Right: training error, the percentage of sampled regions that "
    "are misclassified."
)


def write_unfinished(
    classifiers: Sequence[Record[Recipe]],
    detectors: Sequence[Record[DetectionRecipe]],
    planned: int,
    out: Path,
    heading: Heading,
) -> Path:
    """Write report.html about the runs begun so far, of `planned` runs; return its path.

    Each run has a curve of its own: means over seeds would end with the shortest of them.
    """
    records = [*classifiers, *detectors]
    finished = sum(bool(record.result) for record in records)
    figures = {}
    if classifiers:
        drawing = draw_errors({record.path.name: SeedGroup((record,)) for record in classifiers})
        figures["errors.svg"] = (drawing, ERROR_CAPTION.replace(SEED_MEANS, ""))
    if detectors:
        drawing = draw_learning({record.path.name: SeedGroup((record,)) for record in detectors})
        figures["learning.svg"] = (drawing, LEARNING_CAPTION)
    page = Page(
        heading=(f"{heading[0]} (unfinished)", heading[1]),
        findings=[
            f"Stopped before the end: {finished} of {planned} runs have finished. The same command "
            "resumes the others, and then replaces this page with the results."
        ],
        figures=figures,
        tables=[errors_so_far(records)],
    )
    return write_html(page, out)


def errors_so_far(records: Sequence[Record[Recipe] | Record[DetectionRecipe]]) -> Table:
    """Build a table with the last errors, or a detector's last precision, of each run."""
    rows = []
    for record in records:
        curve = Curve("", record.rows)
        errors = [row["train_error"] for row in record.rows if row["kind"] == "train"]
        _, watched = curve.watched()
        measured = f"{watched[-1]:.2f}" if watched else "–"
        rows.append(
            {
                "run": record.path.name,
                "iterations": f"{record.rows[-1]['iteration']:,} of {record.recipe.iterations:,}",
                "training error (%)": f"{errors[-1]:.2f}",
                "test error (%)": "–" if curve.of_boxes() else measured,
                "mAP@.5 (%)": measured if curve.of_boxes() else "–",
            }
        )
    return table_of(rows, "Training errors are means over the last logged iterations.")
