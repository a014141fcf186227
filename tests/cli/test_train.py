"""Lines about detectors, and what verbs say of a detector's run where they want a classifier's."""

from pathlib import Path
from typing import Any

from reslab.cli.console import event_line
from reslab.cli.train import training_summary

REPORT = {
    "set": "test", "protocol": "COCO, pycocotools", "n": 500, "map_50": 81.2, "map_50_95": 45.1,
    "coco": {"ap": 45.1},
}  # fmt: skip
NUMBERS = "mAP@.5 81.20 %, mAP@[.5:.95] 45.10 %  (COCO, pycocotools, n=500)"


def logged(**numbers: Any) -> str:
    return event_line({"kind": "eval", "iteration": 500} | REPORT | numbers)


def test_an_evaluation_is_a_line_in_the_words_of_its_task() -> None:
    assert logged() == f"iteration 500  test {NUMBERS}"
    voc = logged(map_50_95=None, protocol="VOC 2007, eleven points, IoU 0.5")
    assert voc == "iteration 500  test mAP@.5 81.20 %  (VOC 2007, eleven points, IoU 0.5, n=500)"
    row = {"set": "test", "protocol": "one-crop", "n": 360, "top1_error": 1.5, "top5_error": 0.1}
    line = event_line({"kind": "eval", "iteration": 7} | row)
    assert line == "iteration 7  test error 1.50 %  (one-crop, n=360)"


def test_a_result_is_summed_up_in_the_words_of_its_task() -> None:
    result = {"train_error": 12.345, "iterations": 9, "seconds": 61.4}
    assert training_summary(result | {"evaluation": [REPORT | {"per_class": []}]}, Path("run")) == (
        f"test: {NUMBERS}\n"
        "training error 12.35 %  (last epoch, augmented)\n"
        "9 iterations in 61 s; see run/curves.svg"
    )
    one = {"set": "test", "protocol": "one-crop", "n": 360, "top1_error": 1.5, "top5_error": 0.1,
           "loss": 0.2}  # fmt: skip
    first = training_summary(result | {"evaluation": [one]}, Path("run")).splitlines()[0]
    assert first == "test: top-1 error 1.50 %, top-5 error 0.10 %  (one-crop, n=360)"
