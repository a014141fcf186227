"""Write report pages for classifiers: finished runs, layer responses, evaluated models."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from reslab.evaluation.mistakes import Mistake, mistakes_from, must_be_mistakes
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

MATRIX_CLASSES = 30  # number of classes up to which a confusion matrix is readable
DARK = 0.55  # opacity at which a cell's number turns white
FAINTEST = 0.12  # lowest opacity of a cell with mistakes, so that a single one is visible
RESPONSES = (
    "Layer responses",
    "Do residual nets have smaller responses than plain nets, and do these shrink with depth? "
    "(Sec. 4.2, Fig. 7)",
)
SEED_MEANS = "Curves are means over the seeds. "
ERROR_CAPTION = (
    "Error over iterations, as in the paper's Fig. 6. Bold lines: test error. Thin lines: training "
    f"error on augmented images. {SEED_MEANS}The vertical axis is scaled to the later part of "
    "training, so higher errors at the beginning are cut off."
)
RESPONSE_CAPTION = (
    "Standard deviation of each 3×3 layer's output on the test set, after batch norm and before "
    "ReLU or addition, as in the paper's Fig. 7. Top: in the order of the layers. Bottom: sorted."
)


def write_classifiers(records: Sequence[Record[Recipe]], out: Path, heading: Heading) -> Path:
    """Write the report page for finished runs; return its path."""
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

    `responses` holds the standard deviations of each run by layer.
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
    """Write `report.html` for evaluated models, without their runs; return its path.

    Each evaluation holds a model's name, its report with details, and its mistakes.
    """
    rows = [
        {
            "model": model,
            "set": report["set"],
            "protocol": report["protocol"],
            "n": f"{report['n']:,}",
            "top-1 error (%)": f"{report['top1_error']:.2f}",
        }
        for model, report, _ in evaluations
    ]
    for row, (_, report, _) in zip(rows, evaluations, strict=True):
        if report["top5_error"] is not None:  # the models have the same classes
            row["top-5 error (%)"] = f"{report['top5_error']:.2f}"
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
    return mistakes_from(RunFolder(run).read_json(file.name, must_be_mistakes))


def details_of(label: str, evaluation: Event, mistakes: Sequence[Mistake]) -> EvaluationDetails:
    """Prepare an evaluation for a page, with the mistakes on its set.

    `evaluation` is an entry of the list "evaluation" in result.json.
    """
    rows = evaluation.get("per_class") or []
    confusion = evaluation.get("confusion") or []
    # a class without images has no row, so the names would not match the matrix
    complete = len(confusion) == len(rows) <= MATRIX_CLASSES
    return EvaluationDetails(
        label=label,
        facts=f"{evaluation['set']}, {evaluation['protocol']}: top-1 error "
        f"{evaluation['top1_error']:.2f} % on {evaluation['n']:,} images",
        mistakes=[mistake for mistake in mistakes if mistake.set == evaluation["set"]],
        classes=sorted(rows, key=lambda row: -row["top1_error"]),
        names=[row["class"] for row in rows] if complete else [],
        matrix=[cells(at, counts) for at, counts in enumerate(confusion)] if complete else [],
    )


def cells(label: int, counts: Sequence[int]) -> list[tuple[int, str]]:
    """Return a row of the confusion matrix as cells: count and CSS."""
    total = sum(counts) or 1
    return [(count, cell_style(count / total, at == label)) for at, count in enumerate(counts)]


def cell_style(fraction: float, correct: bool) -> str:
    """Return the CSS of a cell with a `fraction` of its row's images.

    Correct predictions are blue, wrong ones orange; the larger the fraction, the darker the cell.
    """
    if not fraction:
        return ""
    colour = "0,114,178" if correct else "213,94,0"
    opacity = fraction if correct else max(fraction, FAINTEST)
    text = ";color:#fff" if opacity >= DARK else ""
    return f"background:rgba({colour},{opacity:.2f}){text}"
