"""The lines in which events are printed."""

from typing import Any

import pytest

from reslab.api import display
from reslab.api.display import progress_lines
from reslab.api.lines import event_line

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


def test_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"kind": "train", "learning_rate": 0.1, "loss": 1.0, "train_error": 50.0,
           "images_per_second": 9.53}  # fmt: skip
    on_event = progress_lines()
    on_event({"kind": "start", "total": 3, "what": "iterations"})
    for iteration in (1, 2, 3):  # in quick succession: only the first and the last are printed
        on_event(row | {"iteration": iteration})
    facts = "lr 0.1  loss 1.0000  training error 50.00 %  9.5 images/s"
    first, last = capsys.readouterr().err.splitlines()
    assert first == f"iteration 1/3  {facts}  0:00:00 left"
    assert last.startswith(f"iteration 3/3  {facts}")
    on_event({"kind": "start", "total": 2000, "what": "images"})
    on_event({"kind": "progress", "done": 1})
    monkeypatch.setattr(display, "SECONDS_BETWEEN_LINES", 0.0)
    on_event({"kind": "progress", "done": 1999})
    on_event({"kind": "bad", "text": "a.jpg: the file is empty"})
    assert capsys.readouterr().err == (
        "1,999/2,000 images\nreslab: a.jpg: the file is empty; left out\n"
    )
