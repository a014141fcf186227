"""Read finished runs from their folders and group them by recipe, over seeds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Generic, TypeVar

from reslab.detection.recipe import DetectionRecipe
from reslab.models.config import ResNetConfig
from reslab.recipes import AnyRecipe, network_of
from reslab.runtime.events import Event
from reslab.training.folder import RunFolder
from reslab.training.recipe import TASKS, Recipe, label_of

# recipe fields that have no effect on the weights
NO_EFFECT = {"eval_every", "checkpoint_every", "keep_every", "log_every", "watched", "recompute"}
RecipeType = TypeVar("RecipeType", bound=AnyRecipe, covariant=True)


@dataclass(frozen=True)
class Record(Generic[RecipeType]):
    """A run of a classifier or a detector."""

    path: Path
    recipe: RecipeType
    environment: Event
    rows: list[Event]
    result: Event  # empty while the run is not finished

    @property
    def network(self) -> ResNetConfig:
        """The trained network, or a detector's trunk."""
        return network_of(self.recipe)

    @property
    def depth(self) -> int:
        return self.network.depth

    @property
    def own_net(self) -> str | None:
        """The label of a network of the user's own, which `network` does not describe."""
        line = self.recipe.deviations.net
        return None if line is None else label_of(line)

    @property
    def data(self) -> str:
        """The name of the data set."""
        line = self.recipe.deviations.data
        return self.recipe.data if line is None else label_of(line)

    @property
    def kind(self) -> str:
        """The kind of network: plain, ResNet with its shortcut option, or the user's own."""
        option = self.network.option
        return self.own_net or ("plain" if option is None else f"ResNet {option}")

    @property
    def network_label(self) -> str:
        """The network's name as in the paper, with additions: plain-20, ResNet-56, ResNet-20 B.

        A network of the user's own is called by its class.
        """
        if self.own_net:
            return self.own_net
        name, _, option = self.kind.partition(" ")
        label = f"{name}-{self.depth}" + (f" {option}" if option in ("B", "C", "mixed") else "")
        return ", ".join([label, *self.network.additions])

    @property
    def label(self) -> str:
        """The run's name on a page: its network, and an optimizer of the user's own.

        A detector's name also says whether its trunk was pretrained.
        """
        if isinstance(self.recipe, Recipe):
            optimizer = self.recipe.deviations.optimizer
            return ", ".join([self.network_label, *([label_of(optimizer)] if optimizer else [])])
        start = "pretrained trunk" if self.recipe.weights else "from scratch"
        return f"{self.network_label}, {start}"

    @property
    def has_curve(self) -> bool:
        """Whether training errors were logged."""
        return any(row["kind"] == "train" for row in self.rows)

    @property
    def report(self) -> Event:
        """The final evaluation, as stored in result.json."""
        return self.result["evaluation"][-1]

    @property
    def test_set(self) -> str:
        """The name of a detector's test set; for the user's own images, only the split's name."""
        part = self.report["set"]
        return part if self.recipe.data == "boxes" else f"{self.recipe.data}, {part}"


def read_record(path: Path, kind: type[RecipeType]) -> Record[RecipeType]:
    """Read a run; raise ValueError if it is not finished or its recipe is not of type `kind`."""
    record = read_begun(path, kind)
    if not record.has_curve:
        raise ValueError(
            f"{path / 'metrics.jsonl'} has no training errors: there is nothing to plot"
        )
    if not record.result:
        command = record.recipe.deviations.resume_command(path)
        raise ValueError(f"{path} is not finished: resume it with {command}")
    if not record.result["evaluation"]:
        raise ValueError(
            f"{path} is a step of alternating training that is not evaluated: "
            "give the folder of the whole run"
        )
    return record


def read_begun(path: Path, kind: type[RecipeType]) -> Record[RecipeType]:
    """Read a run that may not be finished; raise ValueError if its recipe is not a `kind`."""
    folder = RunFolder.open(path)
    recipe = folder.recipe_as(kind)
    return Record(path, recipe, folder.environment(), folder.rows(), folder.result() or {})


def shared_task(paths: Sequence[Path]) -> str:
    """Return the common task of the runs; raise ValueError if their tasks differ."""
    first, task = paths[0], RunFolder.open(paths[0]).task()
    for path in paths[1:]:
        other = RunFolder.open(path).task()
        if other != task:
            raise ValueError(
                f"{first} is a run of a {TASKS[task]}, {path} of a {TASKS[other]}: "
                "report on them separately"
            )
    return task


@dataclass(frozen=True)
class Seeds:
    """A measure over several seeds, printed as in Table 6: best (mean ± std)."""

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


@dataclass(frozen=True)
class SeedGroup(Generic[RecipeType]):
    """Runs of one recipe, which differ only in their seed."""

    runs: tuple[Record[RecipeType], ...]

    @property
    def first(self) -> Record[RecipeType]:
        return self.runs[0]

    @property
    def train_error(self) -> Seeds:
        return Seeds(tuple(run.result["train_error"] for run in self.runs))

    @property
    def test_error(self) -> Seeds:
        """A classifier's top-1 error."""
        return Seeds(tuple(run.report["top1_error"] for run in self.runs))

    @property
    def map_50(self) -> Seeds:
        """A detector's mAP@.5."""
        return Seeds(tuple(run.report["map_50"] for run in self.runs), max)

    @property
    def map_50_95(self) -> Seeds | None:
        """A detector's mAP@[.5:.95], or None if the protocol does not define it."""
        values = [run.report["map_50_95"] for run in self.runs]
        return None if None in values else Seeds(tuple(values), max)

    @property
    def seconds(self) -> float:
        return mean(run.result["seconds"] for run in self.runs)

    def curve_rows(self) -> list[Event]:
        """Return the log lines averaged over the seeds."""
        by_point: dict[tuple[Any, ...], list[Event]] = {}
        for run in self.runs:
            for row in run.rows:
                if row["kind"] in ("train", "eval"):
                    point = (row["kind"], row["iteration"], row.get("set"))
                    by_point.setdefault(point, []).append(row)
        # runs may have been logged at different iterations: use the iterations common to all
        return [mean_row(rows) for rows in by_point.values() if len(rows) == len(self.runs)]

    def mean_report(self) -> Event:
        """Return a detector's final report, averaged over the seeds."""
        reports = [run.report for run in self.runs]
        classes = zip(*(report["per_class"] for report in reports), strict=True)
        return mean_row(reports) | {"per_class": [mean_row(rows) for rows in classes]}


Classifiers = SeedGroup[Recipe]
Detectors = SeedGroup[DetectionRecipe]
MEASURES = {"train_error", "top1_error", "map_50", "map_50_95", "ap_50", "ap_50_95", "detections"}


def mean_row(rows: Sequence[Event]) -> Event:
    """Return the first row with each measure replaced by its mean, None if undefined in any row."""
    means = {}
    for key in MEASURES & rows[0].keys():
        values = [row[key] for row in rows]
        means[key] = None if None in values else mean(values)
    return rows[0] | means


def group_by_recipe(records: Iterable[Record[RecipeType]]) -> list[SeedGroup[RecipeType]]:
    """Group runs with equal recipes, in the order in which the recipes first appear.

    The fields in `NO_EFFECT` are ignored. Raise ValueError if two runs have the same recipe and
    seed.
    """
    groups: dict[AnyRecipe, list[Record[RecipeType]]] = {}
    for record in records:
        ignored = NO_EFFECT & dict(record.recipe).keys()
        training = record.recipe.model_copy(update=dict.fromkeys(ignored, 1))
        runs = groups.setdefault(training, [])
        for other in runs:
            if other.environment["seed"] == record.environment["seed"]:
                raise ValueError(
                    f"{other.path} and {record.path} have the same recipe and seed: "
                    "name only one of them"
                )
        runs.append(record)
    return [SeedGroup(tuple(runs)) for runs in groups.values()]
