import re
from typing import Any

from reslab.training.curves import Curve, draw_curves

TRAIN = [{"kind": "train", "iteration": k, "train_error": 100.0 / k} for k in range(1, 11)]


def evaluation(iteration: int, **numbers: Any) -> dict[str, Any]:
    return {"kind": "eval", "iteration": iteration, "set": "test"} | numbers


CLASSIFIER = [*TRAIN, evaluation(5, top1_error=40.0), evaluation(10, top1_error=30.0)]
DETECTOR = [*TRAIN, evaluation(5, map_50=20.0), evaluation(10, map_50=60.0, map_50_95=35.0)]


def words(svg: str) -> set[str]:
    """Return the texts of an SVG, which Matplotlib writes as comments beside the outlines."""
    return set(re.findall(r"<!-- (.*?) -->", svg))


def test_what_was_watched_is_an_error_or_a_precision() -> None:
    assert Curve("", CLASSIFIER).watched() == ([5, 10], [40.0, 30.0])
    assert Curve("", DETECTOR).watched() == ([5, 10], [20.0, 60.0])


def test_each_task_has_its_words() -> None:
    assert {"error (%)", "training", "test"} <= words(draw_curves(CLASSIFIER, "a classifier"))
    detector = words(draw_curves(DETECTOR, "a detector"))
    assert {"percent", "training error of regions", "test mAP@.5"} <= detector
    assert "error (%)" not in detector


def test_a_run_that_was_never_evaluated_has_one_curve() -> None:
    assert words(draw_curves(TRAIN, "proposals")) >= {"training", "error (%)"}
    assert "test" not in words(draw_curves(TRAIN, "proposals"))


def test_training_is_averaged_over_stretches() -> None:
    rows = [{"kind": "train", "iteration": k, "train_error": float(k)} for k in (1, 2, 3, 4, 5)]
    assert Curve("", rows).train(bins=3) == ([1.5, 3.5, 5.0], [1.5, 3.5, 5.0])
