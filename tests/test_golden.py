"""Files of the first edition still open, resume, are evaluated and reported, and every verb's
JSON is what it was. `python -m tests.golden.renew` makes the files."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.golden.asked import (
    ANSWERS,
    ASKED,
    GOLDEN,
    RECIPES,
    commands_of,
    copy_golden,
    different,
    settled,
)

OLD_RECIPES = json.loads(RECIPES.read_bytes())
OLD_ANSWERS = json.loads(ANSWERS.read_bytes())
BEGUN = {"seed": 1, "data": None, "device": "cpu", "threads": 1, "commit": None}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies of the golden folders, by name."""
    return copy_golden(tmp_path_factory.mktemp("golden") / "copies")


@pytest.mark.parametrize("name", ASKED)
def test_the_answer_is_the_stored_one(reslab, places: dict[str, Path], name: str) -> None:
    *before, last = commands_of(name, places)
    for words in before:
        assert reslab(*words).returncode == 0
    done = reslab(*last)
    assert done.stdout, done.stderr
    status, stored = OLD_ANSWERS[name]
    assert done.returncode == status, done.stderr
    found = json.loads(json.dumps(settled(json.loads(done.stdout), places)))
    assert not list(different(stored, found))


def test_every_answer_is_asked_for() -> None:
    assert OLD_ANSWERS.keys() == ASKED.keys()


def test_kept_scores_are_not_those_that_would_be_computed() -> None:
    """Otherwise an answer from them would say nothing."""
    kept, computed = (
        OLD_ANSWERS[name][1][0]["top1_error"]
        for name in ("evaluate kept scores", "evaluate images")
    )
    assert kept > computed + 20


def test_a_finished_run_is_not_run_again(reslab, places: dict[str, Path]) -> None:
    for name in ("photographs", "detector", "alternating"):
        done = reslab("resume", places[name], "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == json.loads((GOLDEN / name / "result.json").read_bytes())


def kept(old: Any, new: Any, place: str) -> list[str]:
    """Keys of an old recipe that are gone or have another value."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [f"{place}: {old} -> {new}"]
    return [
        line for key in old for line in kept(old[key], new.get(key, "absent"), f"{place}.{key}")
    ]


def test_every_recipe_keeps_its_keys_and_values(reslab) -> None:
    done = reslab("recipes", "--json")
    found = {fields["name"]: fields for fields in json.loads(done.stdout)}
    assert not kept(OLD_RECIPES, found, "recipes")


def finished(folder: Path, fields: dict[str, Any]) -> Path:
    """A run of a recipe as the first edition wrote it down, with the result of another."""
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(fields))
    (folder / "environment.json").write_text(json.dumps(BEGUN))
    source = GOLDEN / ("classifier" if fields["task"] == "classification" else "detector")
    for name in ("metrics.jsonl", "result.json", "detections.json"):
        if (source / name).exists():
            (folder / name).write_bytes((source / name).read_bytes())
    return folder


def kinds_of_recipes(task: str) -> list[dict[str, Any]]:
    """A recipe of each kind: they differ in more than their names and the size of their nets."""
    kinds: dict[str, dict[str, Any]] = {}
    for fields in OLD_RECIPES.values():
        if fields["task"] == task:
            net = {key: fields["model"].get(key) for key in ("stem", "block", "shortcut", "sizes")}
            kinds.setdefault(json.dumps(fields | {"name": "", "model": net}), fields)
    return list(kinds.values())


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_old_recipe_files_open(reslab, tmp_path: Path, task: str) -> None:
    """A report reads the recipe of each of its runs, strictly."""
    recipes = kinds_of_recipes(task)
    runs = [finished(tmp_path / fields["name"], fields) for fields in recipes]
    done = reslab("report", *runs, "--out", tmp_path / "page", "--json")
    assert done.returncode == 0, done.stderr
    assert [run["run"] for run in json.loads(done.stdout)["runs"]] == [str(run) for run in runs]
    assert len(runs) > 2
