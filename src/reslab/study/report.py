"""Runs to one folder that a person shows to a colleague: page, table, figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import reslab
from reslab.study.figures import draw_errors, draw_responses
from reslab.study.findings import findings, response_findings
from reslab.study.records import Group, Record, departures, grouped
from reslab.study.responses import Response
from reslab.study.tables import HEADER, as_csv, as_markdown, table_rows
from reslab.train.checkpoint import write_atomically

ERROR_CAPTION = (
    "Error over iterations, as in the paper's Fig. 6: bold lines are test errors, thin lines "
    "training errors on augmented pictures; the mean where there are several seeds. The axis ends "
    "above the errors of the later part of training; what is higher leaves the figure at its top."
)
ERROR_NOTE = (
    "Errors of the last iteration: best (mean ± standard deviation over n seeds). Training error "
    "is the mean of the last epoch, on augmented pictures. “paper” is the test error of Table 6, "
    "trained for 64k iterations."
)
RESPONSE_CAPTION = (
    "Standard deviation of each 3×3 layer's output after batch norm, before ReLU and addition, on "
    "the test set, as in the paper's Fig. 7: in the order of the layers, and sorted."
)


@dataclass(frozen=True)
class Page:
    """What report.html shows above recipes and environment."""

    title: str
    question: str
    findings: Sequence[str]
    figures: Mapping[str, tuple[str, str]]  # file name -> SVG text, caption
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    table_note: str


def write_report(records: Sequence[Record], out: Path, title: str, question: str) -> Path:
    """`report.html report.md table.md table.csv figures/` of finished runs; the page's path."""
    groups = grouped(records)
    page = Page(
        title=title,
        question=question,
        findings=findings(groups),
        figures={"errors.svg": (draw_errors(groups), ERROR_CAPTION)},
        header=HEADER,
        rows=table_rows(groups),
        table_note=ERROR_NOTE,
    )
    return write_page(page, groups, out, as_markdown(groups), as_csv(groups))


def write_responses(
    records: Sequence[Record], responses: Sequence[Sequence[Response]], out: Path
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
        header=header,
        rows=rows,
        table_note="Over the 3×3 layers of each net, as trained, last iteration.",
    )
    lines = [header, ("---",) * len(header), *rows]
    markdown = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    table = "network,index,layer,std\n" + "".join(
        f"{label},{index},{response.layer},{response.std!r}\n"
        for label, found in of_models.items()
        for index, response in enumerate(found, 1)
    )
    return write_page(page, grouped(records), out, markdown, table)


def unique(labels: Sequence[str]) -> list[str]:
    """Labels made different by a number where two runs share one."""
    return [
        label if labels.count(label) == 1 else f"{label} #{labels[: i + 1].count(label)}"
        for i, label in enumerate(labels)
    ]


def write_page(page: Page, groups: Sequence[Group], out: Path, markdown: str, table: str) -> Path:
    """Everything into `out`, the page last."""
    from jinja2 import Environment

    template = files(reslab).joinpath("study/report.html.j2").read_text()
    html = Environment(autoescape=True, trim_blocks=True).from_string(template).render(
        title=page.title,
        question=page.question,
        findings=page.findings,
        figures=[{"svg": svg_element(svg), "caption": c} for svg, c in page.figures.values()],
        header=page.header,
        rows=page.rows,
        table_note=page.table_note,
        departures=all_departures(groups),
        recipes=[recipe_entry(group) for group in groups],
        environment=environments(groups),
        folders=[str(run.path) for group in groups for run in group.runs],
        version=reslab.__version__,
    )  # fmt: skip
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, (svg, _) in page.figures.items():
        write_atomically(out / "figures" / name, svg.encode())
    write_atomically(out / "table.md", markdown.encode())
    write_atomically(out / "table.csv", table.encode())
    write_atomically(out / "report.md", markdown_page(page, groups, markdown).encode())
    write_atomically(out / "report.html", html.encode())
    return out / "report.html"


def markdown_page(page: Page, groups: Sequence[Group], table: str) -> str:
    """The page for a repository: Markdown, the figures beside it."""
    figures = [f"![{caption}](figures/{name})" for name, (_, caption) in page.figures.items()]
    parts = [
        f"# {page.title}",
        page.question,
        *page.findings,
        *figures,
        table.rstrip(),
        page.table_note,
        "## Departures from the paper",
        "\n".join(f"- `{line}`" for line in all_departures(groups)) or "None in the recipe.",
        "## Environment",
        "\n".join(f"- {line}" for line in environments(groups)),
    ]
    return "\n\n".join(parts) + "\n"


def svg_element(document: str) -> str:
    """The svg element of an SVG document, for use inside a page."""
    return document[document.index("<svg") :]


def recipe_entry(group: Group) -> dict[str, Any]:
    return {
        "label": group.first.label,
        "seeds": ", ".join(str(run.environment["seed"]) for run in group.runs),
        "json": group.first.recipe.model_dump_json(indent=2),
    }


def all_departures(groups: Sequence[Group]) -> list[str]:
    """Each departure once, with the networks it belongs to where it is not all of them."""
    owners: dict[str, list[str]] = {}
    for group in groups:
        lines = departures(group.first.recipe)
        if group.first.environment.get("precision") == "bf16":
            lines.append("precision: fp32 -> bf16, with weights, statistics and loss in fp32")
        for line in lines:
            owners.setdefault(line, []).append(group.first.label)
    return [
        line if len(labels) == len(groups) else f"{line}  ({', '.join(labels)})"
        for line, labels in owners.items()
    ]


def environments(groups: Sequence[Group]) -> list[str]:
    """Each machine and version that took part, once."""
    keys = ("device", "processor", "precision", "threads", "torch", "python", "system", "commit")
    lines = [
        ", ".join(f"{key} {run.environment[key]}" for key in keys if run.environment.get(key))
        for group in groups
        for run in group.runs
    ]
    return list(dict.fromkeys(lines))
