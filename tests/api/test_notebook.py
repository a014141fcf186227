"""Training where Python users see it: in a notebook, and in a script whose errors go to a pipe."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import reslab
from reslab.api.notebook import NotebookBars

Start = Callable[..., Any]  # as the fixtures of tests/conftest.py
SHORTENED = {
    "iterations": 12, "batch_size": 16, "model.blocks": [1, 1, 1], "recompute_bn": 1,
    "eval_every": 6, "checkpoint_every": 4,
}  # fmt: skip
SHORT = f'recipe = reslab.recipe("digits-resnet20").with_({SHORTENED})'


def outputs(cell: Any) -> Iterator[str]:
    """Yield the kind of each output of a cell, and what it shows."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield f"{output.name}: {output.text}"
        elif output.output_type == "error":
            yield f"error: {output.ename}: {output.evalue}"
        else:
            yield f"{output.output_type}: {output.data}"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The outputs of each cell of a notebook that trains."""
    cells = [
        f"import reslab\n{SHORT}",
        'result = reslab.train(recipe, "run")',
        "result",
        'reslab.train(recipe, "run")',
        'reslab.train(recipe, "silent", on_event=None)',
        'reslab.train(recipe.with_(momentum=0.5), "run")',
        # as the notebook's stop button does, after some iterations
        "import os, signal\n"
        "def interrupt(event):\n"
        '    if event["kind"] == "train" and event["iteration"] == 10:\n'
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        'reslab.train(recipe, "stopped", on_event=interrupt)',
        'reslab.train(recipe, "stopped")',
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    place = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    NotebookClient(notebook, allow_errors=True, timeout=120, resources=place).execute()
    return ["\n".join(outputs(cell)) for cell in notebook.cells]


def test_a_notebook_shows_a_bar_and_lines(notebook: list[str]) -> None:
    shown = notebook[1]
    assert shown.startswith("display_data")
    assert '<progress value="12" max="12"' in shown
    assert "training error" in shown
    assert "stdout: iteration 6  test error" in shown
    assert "stderr" not in shown
    assert notebook[2].startswith("execute_result: {'text/plain': \"RunResult('run': test: top-1")


def test_a_finished_and_a_refused_run_say_so(notebook: list[str]) -> None:
    assert "finished" in notebook[3]
    assert "momentum: 0.9 -> 0.5" in notebook[5].splitlines()[-1]
    assert "error: ValueError" in notebook[5]


def test_nothing_is_shown_where_silence_was_asked_for(notebook: list[str]) -> None:
    assert notebook[4].startswith("execute_result")


def test_the_stop_button_saves_and_the_same_call_resumes(notebook: list[str]) -> None:
    assert "error: KeyboardInterrupt: stopped at iteration 10, saved in stopped" in notebook[6]
    assert "from iteration 10" in notebook[7]
    assert "RunResult('stopped'" in notebook[7]


def test_bars_are_redrawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    class Handle:
        def update(self, content: dict[str, str], raw: bool) -> None:
            drawn.append(content["text/plain"])

    def display(content: dict[str, str], raw: bool, display_id: bool) -> Handle:
        drawn.append(f"new: {content['text/plain']}")
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("reslab.api.notebook.SECONDS_BETWEEN_UPDATES", 0.0)
    bars = NotebookBars()
    bars.on_event({"kind": "start", "total": 2000, "what": "images"})
    bars.on_event({"kind": "progress", "done": 1999})
    bars.on_event({"kind": "start", "total": 5, "what": "<scenes>"})
    assert drawn == ["new: 0/2,000 images", "1,999/2,000 images", "1,999/2,000 images",
                     "new: 0/5 <scenes>"]  # fmt: skip
    assert "&lt;scenes&gt;" in bars.bars[""].html()


def test_a_script_prints_the_lines_of_the_command(start_python: Start, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import reslab\n{SHORT}\nprint(repr(reslab.train(recipe, {str(tmp_path)!r} + '/run')))"
    )
    done = start_python(script).end()
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert any(line.startswith("iteration 12/12  lr 0.001") for line in lines)
    assert any(line.startswith("iteration 6  test error") for line in lines)
    assert "\r" not in done.stderr
    assert done.stdout.startswith(f"RunResult('{tmp_path}/run'")


def test_a_run_is_stopped_by_a_function_and_is_silent_on_request(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = reslab.recipe("digits-resnet20").with_(SHORTENED)
    with pytest.raises(reslab.Interrupted, match="iteration 1, saved") as stopped:
        reslab.train(recipe, tmp_path / "run", on_event=None, stop=lambda: signal.SIGTERM)
    assert stopped.value.signal == signal.SIGTERM
    result = reslab.train(recipe, tmp_path / "run", on_event=None)
    assert (result.iterations, result.folder) == (12, tmp_path / "run")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ValueError, match="'print', None, or a function"):
        reslab.train(recipe, tmp_path / "run", on_event="loud")  # type: ignore[arg-type]
