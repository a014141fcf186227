"""Finished runs, read back from their folders and grouped into sets of seeds."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Generic, TypeVar

from reslab.models.config import ResNetConfig
from reslab.runtime.events import Event
from reslab.training.folder import RunFolder
from reslab.training.recipe import TASKS, Recipe, RunRecipe

# recipe keys that change no weight
CADENCE = {"eval_every", "checkpoint_every", "log_every", "watched"}


@dataclass(frozen=True)
class Record:
    """One finished run of any task: the abstract part of a record."""

    path: Path
    recipe: RunRecipe
    environment: Event
    rows: list[Event]
    result: Event

    @property
    @abstractmethod
    def label(self) -> str:
        """What a page calls the run."""

    @property
    def depth(self) -> int:
        return self.network.depth

    @property
    @abstractmethod
    def network(self) -> ResNetConfig:
        """What was trained, or the trunk of it."""

    @property
    def network_label(self) -> str:
        """As the paper writes it: plain-20, ResNet-56; with the option where it is not A."""
        option = self.network.shortcut
        if option is None:
            return f"plain-{self.depth}"
        return f"ResNet-{self.depth}" + ("" if option == "A" else f" {option}")

    @property
    def train_error(self) -> float:
        return self.result["train_error"]


@dataclass(frozen=True)
class ClassifierRecord(Record):
    """One finished run of a classifier."""

    recipe: Recipe

    @property
    def network(self) -> ResNetConfig:
        return self.recipe.model

    @property
    def label(self) -> str:
        return self.network_label

    @property
    def kind(self) -> str:
        """plain, or ResNet with its shortcut option."""
        option = self.recipe.model.shortcut
        return "plain" if option is None else f"ResNet {option}"

    @property
    def test_error(self) -> float:
        return self.result["evaluation"][-1]["top1_error"]


def task_of(paths: Sequence[Path]) -> str:
    """What all these runs train; ValueError if they train different things."""
    first, task = paths[0], RunFolder.open(paths[0]).task()
    for path in paths[1:]:
        other = RunFolder.open(path).task()
        if other != task:
            raise ValueError(
                f"{first} is a run of a {TASKS[task]}, {path} of a {TASKS[other]}: "
                "make a page of each kind"
            )
    return task


def read_classifier(path: Path) -> ClassifierRecord:
    """A finished run of a classifier; ValueError if it is not one."""
    folder = RunFolder.open(path)
    recipe = folder.recipe()
    return ClassifierRecord(path, recipe, folder.environment(), *rows_and_result(folder))


def rows_and_result(folder: RunFolder) -> tuple[list[Event], Event]:
    """What a run measured and came to; ValueError if it is not finished."""
    result, rows = folder.result(), folder.rows()
    if not any(row["kind"] == "train" for row in rows):
        raise ValueError(f"{folder.metrics} holds no training: there is nothing to draw")
    if result is None:
        raise ValueError(
            f"{folder.path} is not finished; `reslab resume {folder.path}` goes on with it"
        )
    return rows, result


@dataclass(frozen=True)
class Seeds:
    """A number over several seeds, printed as Table 6 prints it: never the best alone."""

    values: tuple[float, ...]
    best: Callable[[tuple[float, ...]], float] = min

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def std(self) -> float:
        return stdev(self.values)

    def __str__(self) -> str:
        best, n = self.best(self.values), len(self.values)
        if n == 1:
            return f"{best:.2f} (n=1)"
        return f"{best:.2f} ({self.mean:.2f} ± {self.std:.2f}, n={n})"


AnyRecord = TypeVar("AnyRecord", bound=Record, covariant=True)


@dataclass(frozen=True)
class SeedGroup(Generic[AnyRecord]):
    """The runs of one recipe, which differ in their seed alone."""

    runs: tuple[AnyRecord, ...]

    @property
    def first(self) -> AnyRecord:
        return self.runs[0]

    @property
    def train_error(self) -> Seeds:
        return Seeds(tuple(run.train_error for run in self.runs))

    @property
    def seconds(self) -> float:
        return mean(run.result["seconds"] for run in self.runs)

    def curve_rows(self) -> list[Event]:
        """The log of the group: each line the mean over its seeds."""
        by_place: dict[tuple[Any, ...], list[Event]] = {}
        for run in self.runs:
            for row in run.rows:
                if row["kind"] in ("train", "eval"):
                    place = (row["kind"], row["iteration"], row.get("set"))
                    by_place.setdefault(place, []).append(row)
        # where runs were logged at different iterations, those that all of them have
        whole = [rows for rows in by_place.values() if len(rows) == len(self.runs)]
        return [_mean_row(rows) for rows in whole]


Classifiers = SeedGroup[ClassifierRecord]


def test_error(group: Classifiers) -> Seeds:
    """That of a recipe, over its seeds."""
    return Seeds(tuple(run.test_error for run in group.runs))


def _mean_row(rows: Sequence[Event]) -> Event:
    measured = [key for key in ("train_error", "top1_error", "map_50") if key in rows[0]]
    return rows[0] | {key: mean(row[key] for row in rows) for key in measured}


def group_by_recipe(records: Iterable[AnyRecord]) -> list[SeedGroup[AnyRecord]]:
    """Runs of equal recipes together, in the order in which the recipes first appear.

    How often a run logs, evaluates and saves changes nothing of its training.
    """
    groups: dict[RunRecipe, list[AnyRecord]] = {}
    for record in records:
        of_no_weight = CADENCE & type(record.recipe).model_fields.keys()
        training = record.recipe.model_copy(update=dict.fromkeys(of_no_weight, 1))
        runs = groups.setdefault(training, [])
        for other in runs:
            if other.environment["seed"] == record.environment["seed"]:
                raise ValueError(
                    f"{other.path} and {record.path} are the same run: recipe and seed are equal"
                )
        runs.append(record)
    return [SeedGroup(tuple(runs)) for runs in groups.values()]
