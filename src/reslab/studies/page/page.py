"""A page: HTML that fetches nothing, and the same for a repository in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import reslab
from reslab.runtime.files import atomic_write
from reslab.studies.page.album import Album
from reslab.studies.page.mistakes import SHOWN_CLASSES, EvaluationDetails
from reslab.studies.paper import deviations, section
from reslab.studies.records import SeedGroup


@dataclass(frozen=True)
class Table:
    """Of a page; the rows beyond `shown` are behind a line to be opened."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    shown: int = 50


@dataclass(frozen=True)
class Page:
    """What report.html shows above recipes and environment."""

    title: str
    question: str
    findings: Sequence[str]
    figures: Mapping[str, tuple[str, str]]  # file name -> SVG text, caption
    tables: Sequence[Table]
    details: Sequence[EvaluationDetails] = ()
    albums: Sequence[Album] = ()


def write_page(
    page: Page, groups: Sequence[SeedGroup], out: Path, markdown: str, table: str
) -> Path:
    """Everything into `out`, the page last."""
    html = html_page(page, groups)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, (svg, _) in page.figures.items():
        atomic_write(out / "figures" / name, svg.encode())
    atomic_write(out / "table.md", markdown.encode())
    atomic_write(out / "table.csv", table.encode())
    atomic_write(out / "report.md", markdown_page(page, groups, markdown).encode())
    atomic_write(out / "report.html", html.encode())
    return out / "report.html"


def html_page(page: Page, groups: Sequence[SeedGroup] = ()) -> str:
    """The page in one file that fetches nothing; without runs, what concerns runs is left out."""
    from jinja2 import Environment

    template = files("reslab.studies.page").joinpath("report.html.j2").read_text()
    return Environment(autoescape=True, trim_blocks=True).from_string(template).render(
        title=page.title,
        question=page.question,
        findings=page.findings,
        figures=[{"svg": svg_element(svg), "caption": c} for svg, c in page.figures.values()],
        tables=page.tables,
        albums=page.albums,
        details=page.details,
        shown_classes=SHOWN_CLASSES,
        deviations=all_deviations(groups),
        recipes=[recipe_entry(group) for group in groups],
        environment=environments(groups),
        folders=[str(run.path) for group in groups for run in group.runs],
        version=reslab.__version__,
    )  # fmt: skip


def markdown_page(page: Page, groups: Sequence[SeedGroup], table: str) -> str:
    """The page for a repository: Markdown, the figures beside it."""
    figures = [f"![{caption}](figures/{name})" for name, (_, caption) in page.figures.items()]
    parts = [
        f"# {page.title}",
        page.question,
        *page.findings,
        *figures,
        table.rstrip(),
        page.tables[0].note,
        *map(table_markdown, page.tables[1:]),
        *map(details_markdown, page.details),
        "## Deviations from the paper",
        *deviations_markdown(groups),
        "## Environment",
        "\n".join(f"- {line}" for line in environments(groups)),
    ]
    return "\n\n".join(parts) + "\n"


def table_markdown(table: Table) -> str:
    """A table under its title."""
    lines = [table.header, ("---",) * len(table.header), *table.rows]
    return "\n\n".join([f"## {table.title}", markdown_table(lines), table.note]).rstrip()


def details_markdown(details: EvaluationDetails) -> str:
    """Mistakes and the worst classes as tables; the images themselves are in the page."""
    parts = [f"## What went wrong: {details.label}", f"{details.facts}."]
    if details.mistakes:
        lines = [("most confident mistakes", "is", "taken for", "%"), ("---",) * 4] + [
            (it.file, it.truth, it.predicted, f"{100 * it.probability:.1f}")
            for it in details.mistakes
        ]
        parts.append(markdown_table(lines))
    if details.classes:
        lines = [("class", "images", "error (%)", "mostly taken for"), ("---",) * 4] + [
            (row.name, f"{row.count:,}", row.share, row.taken_for)
            for row in details.classes[:SHOWN_CLASSES]
        ]
        parts.append(markdown_table(lines))
    return "\n\n".join(parts)


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Cells of anybody's naming as a table."""
    safe = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in safe)


def svg_element(document: str) -> str:
    """The svg element of an SVG document, for use inside a page."""
    return document[document.index("<svg") :]


def recipe_entry(group: SeedGroup) -> dict[str, Any]:
    return {
        "label": group.first.label,
        "seeds": ", ".join(str(run.environment["seed"]) for run in group.runs),
        "json": group.first.recipe.model_dump_json(indent=2),
    }


def all_deviations(groups: Sequence[SeedGroup]) -> dict[str, list[str]]:
    """Where the paper describes a training -> how runs differ from it, each deviation once, with
    the networks it belongs to where it is not all of those."""
    found = {}
    for where in dict.fromkeys(section(group.first.recipe) for group in groups):
        family = [group for group in groups if section(group.first.recipe) == where]
        found[where] = shared_deviations(family)
    return found


def shared_deviations(groups: Sequence[SeedGroup]) -> list[str]:
    """Those of runs that are held against the same training."""
    owners: dict[str, list[str]] = {}
    for group in groups:
        lines = deviations(group.first.recipe)
        if group.first.environment.get("precision") == "bf16":
            lines.append("precision: fp32 -> bf16, with weights, statistics and loss in fp32")
        for line in lines:
            owners.setdefault(line, []).append(group.first.label)
    return [
        line if len(labels) == len(groups) else f"{line}  ({'; '.join(labels)})"
        for line, labels in owners.items()
    ]


def deviations_markdown(groups: Sequence[SeedGroup]) -> list[str]:
    """A paragraph for each training of the paper."""
    return [
        f"From {where}:\n\n" + "\n".join(f"- `{line}`" for line in lines)
        if lines
        else f"From {where}: none in the recipe."
        for where, lines in all_deviations(groups).items()
    ]


def environments(groups: Sequence[SeedGroup]) -> list[str]:
    """Each machine and version that took part, once."""
    keys = ("device", "processor", "precision", "threads", "torch", "python", "system", "commit")
    lines = [
        ", ".join(f"{key} {run.environment[key]}" for key in keys if run.environment.get(key))
        for group in groups
        for run in group.runs
    ]
    return list(dict.fromkeys(lines))
