"""Write report pages on classifiers: finished runs, layer responses, evaluated models."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from reslab.evaluation.mistakes import Mistake, mistakes_from
from reslab.runtime.events import Event
from reslab.studies.page.figures import draw_errors, draw_responses
from reslab.studies.page.findings import classifier_findings, response_findings
from reslab.studies.page.page import EvaluationDetails, Heading, Page, write_html, write_page
from reslab.studies.page.tables import (
    error_table,
    label_classifiers,
    response_table,
    responses_csv,
    runs_csv,
    table_of,
    unique,
)
from reslab.studies.records import Classifiers, Record, group_by_recipe
from reslab.training.folder import RunFolder
from reslab.training.recipe import Recipe

MATRIX_CLASSES = 30  # most classes for which a confusion matrix stays readable
DARK = 0.55  # fraction of its row from which a cell's number is white
FAINTEST = 0.12  # lowest opacity of a cell with mistakes: one among hundreds should be visible
RESPONSES = (
    "Layer responses",
    "Are the responses of residual nets weaker than those of plain nets, and the weaker the "
    "deeper? (Sec. 4.2, Fig. 7)",
)
ERROR_CAPTION = (
    "Error over iterations, as in the paper's Fig. 6: bold lines are test errors, thin lines "
    "training errors on augmented images; the mean where there are several seeds. The axis ends "
    "above the errors of the later part of training; what is higher leaves the figure at its top."
)
RESPONSE_CAPTION = (
    "Standard deviation of each 3×3 layer's output after batch norm, before ReLU and addition, on "
    "the test set, as in the paper's Fig. 7: in the order of the layers, and sorted."
)


def write_classifiers(records: Sequence[Record[Recipe]], out: Path, heading: Heading) -> Path:
    """Write the report page on finished runs; return its path."""
    groups = group_by_recipe(records)
    labelled = label_classifiers(groups)
    page = Page(
        heading=heading,
        findings=classifier_findings(groups),
        figures={"errors.svg": (draw_errors(labelled), ERROR_CAPTION)},
        tables=[error_table(labelled)],
        details=details_of_runs(labelled),
    )
    return write_page(page, groups, out, runs_csv(labelled))


def write_responses(
    records: Sequence[Record[Recipe]], responses: Sequence[Mapping[str, float]], out: Path
) -> Path:
    """Write the report page on layer responses (Fig. 7); return its path.

    `responses` holds each run's standard deviation by layer.
    """
    labels = unique([record.label for record in records])
    networks = dict(zip(labels, responses, strict=True))
    page = Page(
        heading=RESPONSES,
        findings=response_findings(networks),
        figures={"responses.svg": (draw_responses(networks), RESPONSE_CAPTION)},
        tables=[response_table(networks)],
    )
    return write_page(page, group_by_recipe(records), out, responses_csv(networks))


def write_evaluations(
    evaluations: Sequence[tuple[str, Event, Sequence[Mistake]]], out: Path
) -> Path:
    """Write `report.html` on evaluated models, without their runs; return its path.

    Each evaluation holds a model's name, its report with details, and its mistakes.
    """
    rows = [
        {
            "model": model,
            "set": report["set"],
            "protocol": report["protocol"],
            "n": f"{report['n']:,}",
            "top-1 error (%)": f"{report['top1_error']:.2f}",
            "top-5 error (%)": f"{report['top5_error']:.2f}",
        }
        for model, report, _ in evaluations
    ]
    page = Page(
        heading=("Evaluation", "What do these models get wrong?"),
        findings=(),
        figures={},
        tables=[table_of(rows)],
        details=[details_of(*evaluation) for evaluation in evaluations],
    )
    return write_html(page, out)


def details_of_runs(groups: Mapping[str, Classifiers]) -> list[EvaluationDetails]:
    """Return the final evaluation of each recipe's first run, if it has details."""
    details = [
        details_of(
            f"{label}, seed {group.first.environment['seed']}",
            group.first.report,
            read_mistakes(group.first.path),
        )
        for label, group in groups.items()
    ]
    return [evaluation for evaluation in details if evaluation.mistakes or evaluation.classes]


def read_mistakes(run: Path) -> list[Mistake]:
    """Read a run's mistakes.json; older runs do not have one and yield an empty list."""
    file = run / "mistakes.json"
    if not file.exists():
        return []
    content = RunFolder(run).read_json(file.name, "mistakes")
    try:
        return mistakes_from(content)
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def details_of(label: str, evaluation: Event, mistakes: Sequence[Mistake]) -> EvaluationDetails:
    """Prepare an evaluation for a page, with the mistakes on its set.

    `evaluation` is an entry of the list "evaluation" in result.json.
    """
    rows = evaluation.get("per_class") or []
    confusion = evaluation.get("confusion") or []
    # a class without images has no row, which would shift the names of the matrix
    complete = len(confusion) == len(rows) <= MATRIX_CLASSES
    return EvaluationDetails(
        label=label,
        facts=f"{evaluation['set']}, {evaluation['protocol']}: top-1 error "
        f"{evaluation['top1_error']:.2f} % of {evaluation['n']:,} images",
        mistakes=[mistake for mistake in mistakes if mistake.set == evaluation["set"]],
        classes=sorted(rows, key=lambda row: -row["top1_error"]),
        names=[row["class"] for row in rows] if complete else [],
        matrix=[cells(at, counts) for at, counts in enumerate(confusion)] if complete else [],
    )


def cells(label: int, counts: Sequence[int]) -> list[tuple[int, str]]:
    """Return the cells of a row of the confusion matrix: counts and CSS."""
    total = sum(counts) or 1
    return [(count, cell_style(count / total, at == label)) for at, count in enumerate(counts)]


def cell_style(share: float, correct: bool) -> str:
    """Return a cell's CSS: blue for correct predictions, orange for wrong ones.

    The larger its share of the row, the darker the cell.
    """
    if not share:
        return ""
    colour = "0,114,178" if correct else "213,94,0"
    depth = share if correct else max(share, FAINTEST)
    ink = ";color:#fff" if depth >= DARK else ""
    return f"background:rgba({colour},{depth:.2f}){ink}"
