"""What a run's JSON must hold is refused by its place, and what more it holds is no matter."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.golden.questions import GOLDEN

from reslab.training.stored import Environment, must_be, must_be_result, must_be_row

Change = Callable[[dict[str, Any]], object]
TRAIN = {"kind": "train", "iteration": 10, "train_error": 5.0}
EVAL = {"kind": "eval", "iteration": 10, "set": "test", "top1_error": 5}


@pytest.mark.parametrize(
    "row",
    [TRAIN, EVAL, {"kind": "eval", "iteration": 0, "set": "val", "map_50": 0.0},
     {"kind": "warmup", "iteration": 3}, TRAIN | {"more": [None]}],
)  # fmt: skip
def test_lines_of_a_log(row: dict[str, Any]) -> None:
    must_be_row(row)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1], "not an object with keys"),
        ({}, "there is no 'kind' in it"),
        ({"kind": "train"}, "there is no 'iteration' in it"),
        (TRAIN | {"iteration": "10"}, "iteration is '10'"),
        (TRAIN | {"iteration": True}, "iteration is True"),
        (TRAIN | {"iteration": -1}, "iteration is -1"),
        (TRAIN | {"train_error": float("nan")}, "train_error is nan"),
        (TRAIN | {"train_error": None}, "train_error is None"),
        (TRAIN | {"train_error": 100.5}, "train_error is 100.5"),
        (EVAL | {"set": 3}, "set is 3"),
        ({"kind": "eval", "iteration": 1, "set": "val"}, "there is no 'top1_error'"),
    ],
)
def test_other_lines_are_refused(row: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        must_be_row(row)


def stored(run: str) -> dict[str, Any]:
    return json.loads((GOLDEN / run / "result.json").read_bytes())


@pytest.mark.parametrize("run", ["classifier", "photographs", "detector"])
def test_results_of_the_first_edition(run: str) -> None:
    must_be_result(stored(run))


@pytest.mark.parametrize(
    ("run", "change", "reason"),
    [
        ("classifier", lambda made: made.pop("seconds"), "there is no 'seconds' in it"),
        ("classifier", lambda made: made.update(evaluation={}), "evaluation is {}"),
        ("classifier", lambda made: made["evaluation"].append(3), "evaluation.1 is 3"),
        ("classifier", lambda made: made["evaluation"][0].pop("set"), "'set' in evaluation.0"),
        ("classifier", lambda made: made["evaluation"][0]["per_class"][2].pop("class"),
         "there is no 'class' in evaluation.0.per_class.2"),
        ("classifier", lambda made: made["evaluation"][0].update(confusion=[["1"]]),
         "evaluation.0.confusion.0.0 is '1'"),
        ("classifier", lambda made: made["evaluation"][0].update(top1_interval=[1.0]),
         "evaluation.0.top1_interval"),
        ("detector", lambda made: made["evaluation"][0].update(map_50="high"), "map_50 is 'high'"),
        ("detector", lambda made: made["evaluation"][0]["per_class"][0].update(boxes=1.5),
         "evaluation.0.per_class.0.boxes is 1.5"),
    ],
)  # fmt: skip
def test_other_results_are_refused(run: str, change: Change, reason: str) -> None:
    made = stored(run)
    change(made)
    with pytest.raises(ValueError, match=reason):
        must_be_result(made)


def test_the_loss_of_a_run_that_diverged_is_null() -> None:
    made = stored("classifier")
    made["evaluation"][0]["loss"] = None
    must_be_result(made)


def test_environments() -> None:
    must_be(Environment, {"seed": 1, "data": None, "anything": {}})
    for other in ({"seed": 1}, {"seed": "1", "data": None}, {"seed": 1, "data": ["a"]}):
        with pytest.raises(ValueError, match=r"data|seed"):
            must_be(Environment, other)
