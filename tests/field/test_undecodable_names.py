"""A class folder whose name is not UTF-8, as archives made on other systems have it."""

import os
import sys
from pathlib import Path

import pytest
from tests.training.walls import TINY, draw

import reslab


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS allows only UTF-8 in file names")
def test_a_latin_1_name_is_learned_and_shown_with_an_escape(tmp_path: Path) -> None:
    photos = draw(tmp_path / "photos", {"brick": 4, "sky": 4})
    os.rename(photos / "sky", os.fsencode(photos) + b"/caf\xe9")
    recipe = reslab.recipe("own-resnet18", data=photos).with_changes([*TINY, "iterations=1"])
    run = tmp_path / "run"
    reslab.train(recipe, run, data=photos, on_event=None)
    assert reslab.load(run).model.classes == ("brick", os.fsdecode(b"caf\xe9"))
    page = reslab.report(run, tmp_path / "report").path
    assert "caf\\udce9" in page.read_text()
    mistakes = reslab.evaluate(run, on_event=None).write_page(tmp_path / "mistakes")
    assert "caf\\udce9" in mistakes.read_text()
