"""What went wrong, image by image and class by class, as a page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass

from reslab.evaluation.mistakes import Mistake, mistakes_from
from reslab.runtime.events import Event
from reslab.studies.records import Classifiers, Record
from reslab.training.folder import RunFolder
from reslab.training.recipe import Recipe

SHOWN_CLASSES = 20  # the worst ones; the others behind a line to be opened
MATRIX_CLASSES = 30  # at most, so that its numbers can be read
DARK = 0.55  # a cell's share of its row from which on its number is white


@dataclass(frozen=True)
class ClassRow:
    """The errors of one class."""

    name: str
    count: int
    error: float  # percent
    taken_for: str  # what its images were mostly taken for

    @property
    def share(self) -> str:
        return f"{self.error:.1f}"


@dataclass(frozen=True)
class Cell:
    """One number of the confusion matrix."""

    count: int
    right: bool
    share: float  # of the images of its class

    @property
    def style(self) -> str:
        """Blue where the answer is right, orange where it is wrong; the more, the darker."""
        if not self.count:
            return ""
        colour = "0,114,178" if self.right else "213,94,0"
        # a single mistake among hundreds should still be seen
        depth = self.share if self.right else max(self.share, 0.12)
        ink = ";color:#fff" if depth >= DARK else ""
        return f"background:rgba({colour},{depth:.2f}){ink}"


@dataclass(frozen=True)
class EvaluationDetails:
    """One evaluation in detail."""

    label: str
    facts: str
    mistakes: Sequence[Mistake]
    classes: Sequence[ClassRow]  # the worst first
    names: Sequence[str]  # of the confusion matrix's rows and columns
    matrix: Sequence[Sequence[Cell]]  # [label][predicted]


def details_of(label: str, evaluation: Event, mistakes: Sequence[Mistake]) -> EvaluationDetails:
    """A line of result.json's `evaluation` with the mistakes that belong to it."""
    rows = evaluation.get("per_class") or []
    confusion = evaluation.get("confusion") or []
    complete = len(confusion) == len(rows) <= MATRIX_CLASSES  # every class has images
    return EvaluationDetails(
        label=label,
        facts=f"{evaluation['set']}, {evaluation['protocol']}: top-1 error "
        f"{evaluation['top1_error']:.2f} % of {evaluation['n']:,} images",
        mistakes=[mistake for mistake in mistakes if mistake.set == evaluation["set"]],
        classes=sorted(map(class_row, rows), key=lambda row: -row.error),
        names=[row["class"] for row in rows] if complete else [],
        matrix=[cells(index, counts) for index, counts in enumerate(confusion)] if complete else [],
    )


def class_row(row: Event) -> ClassRow:
    """One entry of a report's `per_class`."""
    taken_for = ", ".join(f"{name} ({count})" for name, count in row["taken_for"])
    return ClassRow(row["class"], row["n"], row["top1_error"], taken_for)


def cells(label: int, counts: Sequence[int]) -> list[Cell]:
    """A row of the confusion matrix."""
    whole = sum(counts) or 1
    return [Cell(count, at == label, count / whole) for at, count in enumerate(counts)]


def details_of_runs(
    groups: Sequence[Classifiers], labels: Sequence[str]
) -> list[EvaluationDetails]:
    """The first run of each recipe that has something to show, by the last of its evaluations."""
    found = [
        details_of(
            f"{label}, seed {group.first.environment['seed']}",
            group.first.result["evaluation"][-1],
            mistakes_of(group.first),
        )
        for group, label in zip(groups, labels, strict=True)
    ]
    return [it for it in found if it.mistakes or it.classes]


def mistakes_of(record: Record[Recipe]) -> list[Mistake]:
    """Those in a run's mistakes.json; runs made before there was one have none."""
    file = record.path / "mistakes.json"
    if not file.exists():
        return []
    content = RunFolder(record.path).read_json(file.name, "mistakes")
    try:
        return mistakes_from(content)
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from None
