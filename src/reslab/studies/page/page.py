"""Write a report page as self-contained HTML, and as Markdown for a repository."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import reslab
from reslab.evaluation.mistakes import Mistake
from reslab.runtime.events import Event
from reslab.runtime.text import printable_lines
from reslab.runtime.writing import atomic_write, prepare_folder
from reslab.studies.page.tables import Table, markdown_text
from reslab.studies.paper import deviations, section
from reslab.studies.records import SeedGroup

SHOWN_CLASSES = 20  # number of classes shown, worst first; the rest are collapsed
Heading = tuple[str, str]  # title of a page, and the question that it answers
ENVIRONMENT = ("device", "processor", "precision", "threads", "torch", "python", "system", "commit")


@dataclass(frozen=True)
class EvaluationDetails:
    """The errors of one evaluation, image by image and class by class."""

    label: str
    facts: str
    mistakes: Sequence[Mistake]
    classes: Sequence[Event]  # entries of a report's `per_class`, the worst first
    names: Sequence[str]  # class names of the confusion matrix's rows and columns
    matrix: Sequence[Sequence[tuple[int, str]]]  # [label][predicted]: count, CSS


@dataclass(frozen=True)
class Album:
    """Rows of drawings: one row per image, one column per detector."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]  # file, drawings as data: URLs


@dataclass(frozen=True)
class Page:
    """The content of a page, without the sections on deviations, recipes and environments."""

    heading: Heading
    findings: Sequence[str]
    figures: Mapping[str, tuple[str, str]]  # file name -> SVG text, caption
    tables: Sequence[Table]
    details: Sequence[EvaluationDetails] = ()
    albums: Sequence[Album] = ()


def write_page(page: Page, groups: Sequence[SeedGroup], out: Path, csv: str) -> Path:
    """Write `report.html report.md table.md table.csv figures/`; return the path of report.html.

    report.html is written last, so that the other files exist when it does.
    """
    html = render("report.html.j2", page, groups)
    for folder in (out, out / "figures"):
        prepare_folder(folder)
    texts = {f"figures/{name}": svg for name, (svg, _) in page.figures.items()}
    texts |= {"table.md": page.tables[0].markdown(), "table.csv": csv}
    texts |= {"report.md": render("report.md.j2", page, groups), "report.html": html}
    for name, text in texts.items():
        atomic_write(out / name, encode(text))
    return out / "report.html"


def write_html(page: Page, out: Path) -> Path:
    """Write only `report.html`, without the sections on runs; return its path."""
    prepare_folder(out)
    atomic_write(out / "report.html", encode(render("report.html.j2", page, ())))
    return out / "report.html"


def encode(text: str) -> bytes:
    """Encode text as UTF-8; bytes of file names that are not UTF-8 are shown as escapes."""
    return text.encode(errors="backslashreplace")


def render(template: str, page: Page, groups: Sequence[SeedGroup]) -> str:
    """Render one of the templates in this folder."""
    from jinja2 import Environment

    environment = Environment(
        autoescape=template == "report.html.j2",
        trim_blocks=True,
        keep_trailing_newline=True,
        finalize=printable_value,
    )
    environment.filters["text"] = markdown_text
    text = files("reslab.studies.page").joinpath(template).read_text("utf-8")
    return environment.from_string(text).render(
        page=page,
        groups=groups,
        runs=[run for group in groups for run in group.runs],
        shown_classes=SHOWN_CLASSES,
        deviations=deviations_by_section(groups),
        environments=environments(groups),
        version=reslab.__version__,
    )


def printable_value(value: object) -> object:
    """Escape unprintable characters in a value that a template inserts, unless it is HTML."""
    return printable_lines(value) if type(value) is str else value


def deviations_by_section(groups: Sequence[SeedGroup]) -> dict[str, list[str]]:
    """Map sections of the paper to the runs' deviations from the training described there."""
    families: dict[str, list[SeedGroup]] = {}
    for group in groups:
        families.setdefault(section(group.first.recipe), []).append(group)
    return {where: shared_deviations(family) for where, family in families.items()}


def shared_deviations(groups: Sequence[SeedGroup]) -> list[str]:
    """Return each deviation once, followed by the runs that have it, unless all do."""
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


def environments(groups: Sequence[SeedGroup]) -> list[str]:
    """Return a line for each distinct combination of machine and software versions."""
    lines = [
        ", ".join(
            f"{key} {run.environment[key]}" for key in ENVIRONMENT if run.environment.get(key)
        )
        for group in groups
        for run in group.runs
    ]
    return list(dict.fromkeys(lines))
