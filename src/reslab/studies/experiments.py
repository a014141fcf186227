"""Plan studies: questions from the paper, the runs that answer them, and the report page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from reslab.data.builtin import open_sets, set_named
from reslab.detection.average_precision.measure import import_pycocotools
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import load_weights
from reslab.errors import unknown_name
from reslab.models.config import CIFAR_DEPTHS
from reslab.recipes import AnyRecipe, any_recipe, network_of, recipe
from reslab.studies.page.classifiers import write_classifiers
from reslab.studies.page.detectors import write_detectors
from reslab.studies.page.page import Heading
from reslab.studies.page.unfinished import write_unfinished
from reslab.studies.records import RecipeType, Record, read_begun, read_record, shared_task
from reslab.training.folder import RunFolder
from reslab.training.recipe import Recipe

REPORT = ("Report", "What are the results of these runs?")
STUDIES = {  # studies with runs of their own: name -> heading of the page
    "degradation": (
        "Degradation: does depth hurt?",
        "Does depth raise the training error of plain nets, but not that of residual nets? "
        "(Sec. 4.2, Fig. 6)",
    ),
    "depth": (
        "Depth: do residual nets benefit from it?",
        "Does the test error of residual nets fall as they grow deeper? (Sec. 4.2, Table 6)",
    ),
    "shortcuts": (
        "Shortcuts: identity or projection?",
        "How much do options A, B and C differ? (Sec. 4.1, Table 3, here with the CIFAR nets)",
    ),
    "detection": (
        "Transfer: does a pretrained trunk help a detector?",
        "Is a detector with a trunk pretrained on classification better than one trained from "
        "scratch for as many iterations? (Sec. 4.3, App. A; here Faster R-CNN on a small net that "
        "detects digits in scenes)",
    ),
}
DEPTHS = {"degradation": (20, 56), "depth": (20, 32, 44, 56, 110), "shortcuts": (20,)}
# The degradation study on digits is the first minute of a newcomer: half the images per iteration,
# half the iterations. At this rate neither the 56-layer residual net nor the plain ones need a
# warm-up, and both findings hold for each of eight seeds (docs/log.md).
SETTINGS = {
    ("degradation", "digits"): (
        "iterations=320",
        "batch_size=64",
        "virtual_gpus=1",
        "learning_rate=0.03",
        "warmup=null",
        "recompute_bn=20",
        "eval_every=32",
        "checkpoint_every=32",
    )
}
EVALUATIONS = 20  # minimum number of points on a curve when a schedule is shortened
CLASSIFIER, DETECTOR = "digits-resnet20", "digit-scenes-resnet20-c4"
UNTRAINED = "model.norm=group"  # batch norm would need statistics from trained weights


@dataclass(frozen=True)
class PlannedRun:
    """A planned run of a study and its folder."""

    base: str  # name of the recipe before the changes
    changes: tuple[str, ...]
    seed: int
    folder: Path
    weights: Path | None = None  # folder of the run whose weights it starts from

    @property
    def recipe(self) -> AnyRecipe:
        """The recipe with its changes, without the digest of weights that may not exist yet."""
        return any_recipe(self.base).with_changes(self.changes)

    @property
    def cost(self) -> int:
        """The relative duration of the run: blocks times images."""
        recipe = self.recipe
        return sum(network_of(recipe).blocks) * recipe.batch_size * recipe.iterations

    def check_folder(self) -> None:
        """Raise ValueError if the folder holds another run.

        While the weights to start from are missing, the recipe is not known and nothing is checked.
        """
        if not (self.folder / "recipe.json").exists():
            return
        if self.weights and not (self.weights / "model.safetensors").exists():
            return
        weights = load_weights(self.weights) if self.weights else None
        recipe = any_recipe(self.base, weights=weights).with_changes(self.changes)
        RunFolder(self.folder).must_match(recipe, self.seed)


@dataclass(frozen=True)
class Study:
    """A question, from the paper or the user's own, and the runs that answer it."""

    heading: Heading
    folder: Path
    runs: tuple[PlannedRun, ...]

    def write_page(self) -> tuple[Path, list[Record]]:
        """Write the report page for the finished runs; return its path and the records."""
        trunks = list(dict.fromkeys(run.weights for run in self.runs if run.weights))
        # all seeds with pretrained trunks, then all seeds from scratch
        compared = sorted(self.runs, key=lambda run: run.weights is None)
        paths = [run.folder for run in compared if run.folder not in trunks]
        return write_report(paths, self.folder, self.heading, trunks)

    def write_unfinished_page(self) -> Path | None:
        """Write the page about the runs so far; return its path, or None if none has a curve."""
        classifiers, detectors = self.begun(Recipe), self.begun(DetectionRecipe)
        if not (classifiers or detectors):
            return None
        planned = len(self.runs)
        return write_unfinished(classifiers, detectors, planned, self.folder, self.heading)

    def begun(self, kind: type[RecipeType]) -> list[Record[RecipeType]]:
        """Read the runs of one kind of recipe that have logged training errors."""
        runs = [run for run in self.runs if isinstance(run.recipe, kind)]
        folders = [run.folder for run in runs if (run.folder / "recipe.json").exists()]
        records = [read_begun(folder, kind) for folder in folders]
        return [record for record in records if record.has_curve]


def write_report(
    paths: Sequence[Path],
    out: Path,
    heading: Heading = REPORT,
    trunks: Sequence[Path] = (),
) -> tuple[Path, list[Record]]:
    """Write the report page for finished runs of one task; return its path and the records.

    `trunks` are the runs of the classifiers whose weights the detectors started from.
    """
    if shared_task(paths) == "detection":
        detectors = [read_record(path, DetectionRecipe) for path in paths]
        classifiers = [read_record(path, Recipe) for path in trunks]
        page = write_detectors(detectors, out, heading, classifiers)
        return page, [*classifiers, *detectors]
    records = [read_record(path, Recipe) for path in paths]
    return write_classifiers(records, out, heading), [*records]


def plan_study(
    name: str,
    *,
    on: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    depths: Sequence[int] = (),
    iterations: int | None = None,
    seeds: int = 1,
) -> Study:
    """Plan the study `name`; raise ValueError for an option that does not apply to it.

    A missing data set or package is reported once, here, rather than by every run.
    """
    if name not in STUDIES:
        raise ValueError(unknown_name("study", name, (*STUDIES, "responses")))
    if iterations is not None and iterations < 1:
        raise ValueError(f"`iterations` {iterations} must be at least 1")
    if name == "detection":
        layers = ",".join(map(str, depths))
        refuse_options(name, {"on": on, "depths": layers, "data": data})
        import_pycocotools()
        folder = out or Path("studies") / "detection-digit-scenes"
        runs = plan_detectors(folder, iterations, seeds)
    else:
        data_set = set_named(on or "digits")
        folder = out or Path("studies") / f"{name}-{data_set}"
        models = compared_models(name, depths or DEPTHS[name])
        recipes = [f"{data_set}-{model}" for model in models]
        settings = SETTINGS.get((name, data_set), ())
        runs = plan_classifiers(recipes, settings, folder, iterations, seeds)
        open_sets(data_set, data)
    return Study(STUDIES[name], folder, tuple(runs))


def refuse_options(study: str, options: Mapping[str, object]) -> None:
    """Raise ValueError if any of `options`, which do not apply to the study, has a value."""
    for option, value in options.items():
        if value:
            raise ValueError(f"`{option}` {value} does not apply to the {study} study")


def compared_models(study: str, depths: Sequence[int]) -> list[str]:
    """Return the names of the networks that a study of classifiers compares."""
    for depth in depths:
        if depth not in CIFAR_DEPTHS:
            known = ", ".join(map(str, CIFAR_DEPTHS))
            raise ValueError(f"`depths` {depth} is not in Table 6; its depths are {known}")
    if study == "shortcuts":
        return [f"resnet{depth}-{option}" for depth in depths for option in "ABC"]
    kinds = ("plain", "resnet") if study == "degradation" else ("resnet",)
    return [f"{kind}{depth}" for kind in kinds for depth in depths]


def plan_classifiers(
    names: Sequence[str],
    settings: Sequence[str],
    out: Path,
    iterations: int | None,
    seeds: int,
) -> list[PlannedRun]:
    """Plan a run for each recipe, changed by `settings`, and each seed.

    A shortened schedule drops the learning rate at the same fractions of the iterations.
    """
    runs = []
    for seed in range(1, seeds + 1):
        for name in names:
            folder = out / "runs" / f"{name.partition('-')[2]}-seed{seed}"
            shorter = shortened(recipe(name).with_changes(settings), iterations)
            runs.append(PlannedRun(name, (*settings, *shorter), seed, folder))
    return runs


def plan_detectors(out: Path, iterations: int | None, seeds: int) -> list[PlannedRun]:
    """Plan a classifier and, for each seed, a detector from its weights and one from scratch.

    `iterations` applies to the detectors; the classifier's training is shortened in proportion.
    """
    detector, classifier = any_recipe(DETECTOR), any_recipe(CLASSIFIER)
    fraction = min(1.0, (iterations or detector.iterations) / detector.iterations)
    shorter = shortened(classifier, ceil(fraction * classifier.iterations))
    trunk = PlannedRun(CLASSIFIER, shorter, 1, out / "runs" / CLASSIFIER)
    changes = shortened(detector, iterations, dense=True)
    runs = [trunk]
    for seed in range(1, seeds + 1):
        trained, untrained = (
            out / "runs" / f"{kind}-seed{seed}" for kind in ("trained", "untrained")
        )
        runs.append(PlannedRun(DETECTOR, changes, seed, trained, trunk.folder))
        runs.append(PlannedRun(DETECTOR, (*changes, UNTRAINED), seed, untrained))
    return runs


def shortened(recipe: AnyRecipe, iterations: int | None, *, dense: bool = False) -> tuple[str, ...]:
    """Return the changes that shorten a recipe, with at least `EVALUATIONS` points on its curves.

    With `dense`, this also holds for a schedule of full length.
    """
    whole = iterations is None or iterations == recipe.iterations
    if whole and not dense:
        return ()
    every = max(1, (iterations or recipe.iterations) // EVALUATIONS)
    changes = [] if whole else [f"iterations={iterations}"]
    changes += [f"eval_every={every}"] if every < recipe.eval_every else []
    changes += [f"checkpoint_every={every}"] if every < recipe.checkpoint_every else []
    return tuple(changes)
