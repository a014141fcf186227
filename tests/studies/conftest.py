"""Finished runs written by hand: all that a page reads, without training."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reslab.data.boxes.digit_scenes import digit_scenes, save_scenes
from reslab.data.boxes.sets import Detections
from reslab.detection.average_precision.measure import measure
from reslab.detection.average_precision.results import as_results
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import open_detection_data
from reslab.detection.task import DETECTIONS_FILE
from reslab.recipes import detection_recipe, recipe
from reslab.studies.records import Record, read_record
from reslab.training.recipe import Deviations, Recipe

Finish = Callable[..., Path]
Read = Callable[..., Record[Any]]


def write_run(run: Path, recipe: Any, environment: dict, rows: list, result: dict) -> Path:
    run.mkdir()
    (run / "recipe.json").write_text(recipe.model_dump_json())
    (run / "environment.json").write_text(json.dumps(environment))
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "result.json").write_text(json.dumps(result))
    return run


@pytest.fixture
def finish(tmp_path: Path) -> Finish:
    """Return a function that writes a finished run of a classifier with given errors."""

    def write(
        name: str, seed: int = 1, train_error: float = 5.0, test_error: float = 10.0,
        changes: tuple[str, ...] = (),
    ) -> Path:  # fmt: skip
        changed = recipe(name).with_changes(changes)
        rows = []
        for k in range(1, 11):
            iteration = changed.iterations * k // 10
            rows.append(
                {"kind": "train", "iteration": iteration, "learning_rate": 0.1, "loss": 1.0,
                 "train_error": train_error + 50 / k, "images_per_second": 100.0}
            )  # fmt: skip
            rows.append(
                {"kind": "eval", "iteration": iteration, "set": "test", "protocol": "one-crop",
                 "n": 360, "top1_error": test_error + 50 / k, "top5_error": 1.0, "loss": 1.0}
            )  # fmt: skip
        report = {"set": "test", "protocol": "one-crop", "n": 360, "top1_error": test_error,
                  "top5_error": 0.5, "loss": 0.1}  # fmt: skip
        result = {"weights_sha256": "0" * 64, "state_sha256": "1" * 64, "seconds": 12.5,
                  "iterations": changed.iterations, "train_error": train_error,
                  "evaluation": [report]}  # fmt: skip
        environment = {"seed": seed, "data": None, "device": "cpu", "threads": 2, "commit": "abc"}
        return write_run(tmp_path / f"{name}-{seed}", changed, environment, rows, result)

    return write


@pytest.fixture
def classifier(finish: Finish) -> Read:
    """Return a function that writes such a run and reads its record."""
    return lambda *args, **options: read_record(finish(*args, **options), Recipe)


@pytest.fixture
def own_parts(classifier: Read) -> Read:
    """The record of a run with parts of the user's own, each given as a line of `Deviations`."""

    def read(name: str, seed: int = 1, test_error: float = 10.0, **lines: str) -> Record[Recipe]:
        record = classifier(name, seed, test_error=test_error)
        changes: dict[str, Any] = {"deviations": Deviations(**lines)}
        if "data" in lines:
            changes["data"] = "own"
        environment = record.environment | ({"parameters": 531} if "net" in lines else {})
        changed = record.recipe.model_copy(update=changes)
        return replace(record, recipe=changed, environment=environment)

    return read


@pytest.fixture
def degradation(classifier: Read) -> list[Record[Recipe]]:
    """Return runs of plain nets that degrade and of residual nets that do not."""
    errors = {"plain20": 0.5, "plain56": 25.0, "resnet20": 0.1, "resnet56": 0.6}
    return [classifier(f"digits-{model}", train_error=error) for model, error in errors.items()]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a few digit-scenes to a folder in COCO's layout, as a user's own boxes."""
    folder = tmp_path_factory.mktemp("scenes")
    save_scenes(folder, digit_scenes(train=2, test=3), lambda none: None)
    return folder


@pytest.fixture
def finish_detector(tmp_path: Path, scenes: Path) -> Finish:
    """Return a function that writes a finished run of a detector with given precisions.

    The detector has found every object in the scenes, with the given score.
    """

    def write(
        seed: int = 1, *, trained: bool = True, map_50: float = 80.0, score: float = 0.9,
        changes: tuple[str, ...] = (),
    ) -> Path:  # fmt: skip
        kind = ("weights=" + "a" * 64,) if trained else ("model.norm=group",)
        changed = detection_recipe("digit-scenes-resnet20-c4").with_changes(
            ("data=boxes", *kind, *changes)
        )
        test = open_detection_data(changed, scenes)[0].test
        detections = [
            Detections(t.boxes, torch.full((len(t),), score), t.labels) for t in test.truths
        ]
        report = measure(test, detections, "coco")
        report = report.as_dict() | report.details() | {"map_50": map_50, "map_50_95": map_50 / 2}
        rows = []
        for k in range(1, 11):
            iteration = changed.iterations * k // 10
            rows.append({"kind": "train", "iteration": iteration, "train_error": 50 / k})
            rows.append({"kind": "eval", "iteration": iteration, "set": test.name,
                         "map_50": map_50 * k / 10})  # fmt: skip
        result = {"weights_sha256": "0" * 64, "iterations": changed.iterations, "seconds": 12.5,
                  "train_error": 5.0, "evaluation": [report]}  # fmt: skip
        environment = {"seed": seed, "data": str(scenes), "device": "cpu", "commit": "abc"}
        run = tmp_path / f"{'trained' if trained else 'untrained'}-{seed}"
        write_run(run, changed, environment, rows, result)
        (run / DETECTIONS_FILE).write_text(json.dumps(as_results(test, detections)))
        return run

    return write


@pytest.fixture
def detector(finish_detector: Finish) -> Read:
    """Return a function that writes such a run and reads its record."""
    return lambda *args, **options: read_record(finish_detector(*args, **options), DetectionRecipe)


@pytest.fixture
def pair(detector: Read) -> Callable[..., list[Record[DetectionRecipe]]]:
    """Return a function that makes a detector with a pretrained trunk and one from scratch."""
    return lambda **options: [
        detector(trained=True, map_50=90.0, **options),
        detector(trained=False, map_50=60.0, **options),
    ]
