"""How events are shown: as lines, and as bars on a terminal. Notebooks have a test of their own."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from reslab.api import display
from reslab.api.display import progress_lines, showing, update_bars
from reslab.api.lines import event_line
from reslab.runtime.events import silent

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


def test_bars_follow_work_and_the_runs_of_a_study() -> None:
    out = StringIO()
    bars = Progress(console=Console(file=out, width=100))
    on_event = update_bars(bars)
    on_event({"kind": "start", "total": 20, "what": "iterations"})
    on_event({"kind": "train", "iteration": 5, "learning_rate": 0.1, "loss": 1.0,
              "train_error": 50.0, "images_per_second": 780.4})  # fmt: skip
    (task,) = bars.tasks
    facts = "lr 0.1  loss 1.0000  training error 50.00 %  780 images/s"
    assert (task.completed, task.total, task.description) == (5, 20, facts)
    on_event({"kind": "start", "total": 9, "what": "images"})
    on_event({"kind": "progress", "done": 4})
    (task,) = bars.tasks
    assert (task.completed, task.total, task.description) == (4, 9, "images")
    on_event({"kind": "note", "text": "[red]a\x1b[2Jnote :smile:"})
    assert out.getvalue() == "reslab: [red]a\\x1b[2Jnote :smile:\n"
    study = Progress()
    on_event = update_bars(study)
    for run, done in (("a", 0), ("b", 0), ("b", 3)):
        error = {"train_error": 43.75} if done else {}
        on_event({"kind": "run", "run": run, "done": done, "total": 10} | error)
    assert [(task.description, task.completed, task.started) for task in study.tasks] == [
        ("a", 0, False), ("b  training error 43.75 %", 3, True),
    ]  # fmt: skip


def test_a_run_of_a_study_is_a_line_now_and_then_and_once_it_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"kind": "run", "run": "plain20-seed1", "total": 1000, "train_error": 43.75}
    on_event = progress_lines()
    for done in (0, 10, 20, 1000, 1000):  # in quick succession: only the end is printed
        on_event(row | {"done": done})
    assert capsys.readouterr().err == "1,000/1,000 plain20-seed1  training error 43.75 %\n"
    monkeypatch.setattr(display, "SECONDS_BETWEEN_RUN_LINES", 0.0)
    on_event = progress_lines()
    on_event({"kind": "run", "run": "a", "done": 0, "total": 10})
    for done in (5, 5, 6):
        on_event({"kind": "run", "run": "a", "done": done, "total": 10})
    assert capsys.readouterr().err == "5/10 a\n6/10 a\n"


def test_silence_a_function_or_a_mistake() -> None:
    events: list[Any] = []
    with showing(events.append) as on_event:
        on_event({"kind": "note", "text": "resumed"})
    assert events == [{"kind": "note", "text": "resumed"}]
    with showing(None) as on_event:
        assert on_event is silent
    with pytest.raises(ValueError, match="on_event='loud': give 'print', None, or a function"):
        showing("loud")  # type: ignore[arg-type]
