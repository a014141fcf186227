"""Finished runs, read back from their folders and grouped into sets of seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from reslab.recipes.cifar10 import cifar10_recipe
from reslab.recipes.imagenet import imagenet_recipe
from reslab.train.folder import RunFolder
from reslab.train.recipe import Recipe

Row = dict[str, Any]
CADENCE = ("eval_every", "checkpoint_every", "log_every")  # recipe keys that change no weight


@dataclass(frozen=True)
class Record:
    """One finished run."""

    path: Path
    recipe: Recipe
    environment: Row
    rows: list[Row]
    result: Row

    @property
    def depth(self) -> int:
        return self.recipe.model.depth

    @property
    def kind(self) -> str:
        """plain, or ResNet with its shortcut option."""
        option = self.recipe.model.shortcut
        return "plain" if option is None else f"ResNet {option}"

    @property
    def label(self) -> str:
        """As the paper writes it: plain-20, ResNet-56; with the option where it is not A."""
        option = self.recipe.model.shortcut
        if option is None:
            return f"plain-{self.depth}"
        return f"ResNet-{self.depth}" + ("" if option == "A" else f" {option}")

    @property
    def test_error(self) -> float:
        return self.result["evaluation"][-1]["top1_error"]

    @property
    def train_error(self) -> float:
        return self.result["train_error"]


def read_record(path: Path) -> Record:
    """A finished run of a classifier; ValueError if it is not one."""
    folder = RunFolder.open(path)
    recipe = folder.recipe()
    result, rows = folder.result(), folder.rows()
    if not any(row["kind"] == "train" for row in rows):
        raise ValueError(f"{folder.metrics} holds no training: there is nothing to draw")
    if result is None:
        raise ValueError(f"{path} is not finished; `reslab resume {path}` goes on with it")
    return Record(path, recipe, folder.environment(), rows, result)


@dataclass(frozen=True)
class Seeds:
    """A number over several seeds, printed as Table 6 prints it: never the best alone."""

    values: tuple[float, ...]

    def __str__(self) -> str:
        best, n = min(self.values), len(self.values)
        if n == 1:
            return f"{best:.2f} (n=1)"
        return f"{best:.2f} ({mean(self.values):.2f} ± {stdev(self.values):.2f}, n={n})"


@dataclass(frozen=True)
class Group:
    """The runs of one recipe, which differ in their seed alone."""

    runs: tuple[Record, ...]

    @property
    def first(self) -> Record:
        return self.runs[0]

    @property
    def test_error(self) -> Seeds:
        return Seeds(tuple(run.test_error for run in self.runs))

    @property
    def train_error(self) -> Seeds:
        return Seeds(tuple(run.train_error for run in self.runs))

    @property
    def mean_train_error(self) -> float:
        return mean(self.train_error.values)

    @property
    def mean_test_error(self) -> float:
        return mean(self.test_error.values)

    @property
    def seconds(self) -> float:
        return mean(run.result["seconds"] for run in self.runs)

    def curve_rows(self) -> list[Row]:
        """The log of the group: each line the mean over its seeds."""
        by_place: dict[tuple[Any, ...], list[Row]] = {}
        for run in self.runs:
            for row in run.rows:
                if row["kind"] in ("train", "eval"):
                    place = (row["kind"], row["iteration"], row.get("set"))
                    by_place.setdefault(place, []).append(row)
        # where runs were logged at different iterations, those that all of them have
        whole = [rows for rows in by_place.values() if len(rows) == len(self.runs)]
        return [_mean_row(rows) for rows in whole]


def _mean_row(rows: Sequence[Row]) -> Row:
    error = "train_error" if rows[0]["kind"] == "train" else "top1_error"
    return rows[0] | {error: mean(row[error] for row in rows)}


def grouped(records: Iterable[Record]) -> list[Group]:
    """Runs of equal recipes together, in the order in which the recipes first appear.

    How often a run logs, evaluates and saves changes nothing of its training.
    """
    groups: dict[Recipe, list[Record]] = {}
    for record in records:
        training = record.recipe.model_copy(update=dict.fromkeys(CADENCE, 1))
        runs = groups.setdefault(training, [])
        for other in runs:
            if other.environment["seed"] == record.environment["seed"]:
                raise ValueError(
                    f"{other.path} and {record.path} are the same run: recipe and seed are equal"
                )
        runs.append(record)
    return [Group(tuple(runs)) for runs in groups.values()]


def departures(recipe: Recipe) -> list[str]:
    """How a recipe differs from the paper's training of the same net: on ImageNet (Sec. 3.4) for
    photographs, else on CIFAR-10 (Sec. 4.2)."""
    photographs = recipe.data == "pictures"
    layout: dict[str, str | None] = {"zeros": "end", "stride_on": "1x1", "pool": "ceil"}
    if not photographs:
        layout["shortcut"] = recipe.model.shortcut and "A"
    make = imagenet_recipe if photographs else cifar10_recipe
    paper = make("", recipe.model.model_copy(update=layout))
    return [line for line in paper.differences(recipe) if not line.startswith(CADENCE)]
