"""Runs to one folder that a person shows to a colleague: page, table, figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reslab.analysis.responses import Response
from reslab.evaluation.mistakes import Mistake
from reslab.runtime.files import atomic_write
from reslab.studies.page.figures import draw_errors, draw_responses
from reslab.studies.page.findings import classifier_findings, response_findings
from reslab.studies.page.mistakes import details_of, details_of_runs
from reslab.studies.page.page import Page, Table, html_page, markdown_table, write_page
from reslab.studies.page.tables import (
    ERROR_HEADER,
    as_markdown,
    error_rows,
    labels_of,
    runs_as_csv,
    unique,
)
from reslab.studies.records import Record, group_by_recipe
from reslab.training.recipe import Recipe

ERROR_CAPTION = (
    "Error over iterations, as in the paper's Fig. 6: bold lines are test errors, thin lines "
    "training errors on augmented images; the mean where there are several seeds. The axis ends "
    "above the errors of the later part of training; what is higher leaves the figure at its top."
)
ERROR_NOTE = (
    "Errors of the last iteration: best (mean ± standard deviation over n seeds). Training error "
    "is the mean of the last epoch, on augmented images. “paper” is the test error of Table 6, "
    "trained for 64k iterations."
)
RESPONSE_CAPTION = (
    "Standard deviation of each 3×3 layer's output after batch norm, before ReLU and addition, on "
    "the test set, as in the paper's Fig. 7: in the order of the layers, and sorted."
)


def write_classifiers(
    records: Sequence[Record[Recipe]], out: Path, title: str, question: str
) -> Path:
    """`report.html report.md table.md table.csv figures/` of finished runs; the page's path."""
    groups = group_by_recipe(records)
    page = Page(
        title=title,
        question=question,
        findings=classifier_findings(groups),
        figures={"errors.svg": (draw_errors(groups), ERROR_CAPTION)},
        tables=[Table("Table", ERROR_HEADER, error_rows(groups), ERROR_NOTE)],
        details=details_of_runs(groups, labels_of(groups)),
    )
    return write_page(page, groups, out, as_markdown(groups), runs_as_csv(groups))


def write_responses(
    records: Sequence[Record[Recipe]], responses: Sequence[Sequence[Response]], out: Path
) -> Path:
    """The same page for Fig. 7, one list of responses a run."""
    labels = unique([record.label for record in records])
    of_models = dict(zip(labels, responses, strict=True))
    header = ("network", "3×3 layers", "mean std", "smallest", "largest")
    rows = [
        (
            label,
            str(len(stds)),
            f"{sum(stds) / len(stds):.3f}",
            f"{min(stds):.3f}",
            f"{max(stds):.3f}",
        )
        for label, stds in ((k, [r.std for r in v]) for k, v in of_models.items())
    ]
    page = Page(
        title="Layer responses",
        question="Are the responses of residual nets weaker than those of plain nets, and the "
        "weaker the deeper? (Sec. 4.2, Fig. 7)",
        findings=response_findings(of_models),
        figures={"responses.svg": (draw_responses(of_models), RESPONSE_CAPTION)},
        tables=[
            Table(
                "Table",
                header,
                rows,
                "Over the 3×3 layers of each net, as trained, last iteration.",
            )
        ],
    )
    markdown = markdown_table([header, ("---",) * len(header), *rows]) + "\n"
    table = "network,index,layer,std\n" + "".join(
        f"{label},{index},{response.layer},{response.std!r}\n"
        for label, found in of_models.items()
        for index, response in enumerate(found, 1)
    )
    return write_page(page, group_by_recipe(records), out, markdown, table)


def write_evaluations(
    evaluations: Sequence[tuple[str, dict[str, Any], Sequence[Mistake]]], out: Path
) -> Path:
    """`report.html` of models that were tested here, wherever they were trained; its path.

    An evaluation is a model's name, its report with details, and its mistakes.
    """
    header = ("model", "set", "protocol", "n", "top-1 error (%)", "top-5 error (%)")
    rows = [
        (model, row["set"], row["protocol"], f"{row['n']:,}", f"{row['top1_error']:.2f}",
         f"{row['top5_error']:.2f}")
        for model, row, _ in evaluations
    ]  # fmt: skip
    page = Page(
        title="Evaluation",
        question="What do these models get wrong?",
        findings=(),
        figures={},
        tables=[Table("Table", header, rows)],
        details=[details_of(*evaluation) for evaluation in evaluations],
    )
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "report.html", html_page(page).encode())
    return out / "report.html"
