"""The first edition's files can still be used, and every verb's JSON is unchanged.

`python -m tests.golden.renew` makes the files.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.golden.questions import (
    ANSWERS,
    GOLDEN,
    QUESTIONS,
    RECIPES,
    commands_of,
    copy_golden,
    different,
    settled,
)

from reslab.kernels.build import KernelsMissing, find_compiler, instructions_for

OLD_RECIPES = json.loads(RECIPES.read_bytes())
OLD_ANSWERS = json.loads(ANSWERS.read_bytes())
ENVIRONMENT = {"seed": 1, "data": None, "device": "cpu", "threads": 1, "commit": None}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies of the golden folders, by name."""
    return copy_golden(tmp_path_factory.mktemp("golden") / "copies")


def has_kernels() -> bool:
    try:
        find_compiler()
        instructions_for("fp32")
    except KernelsMissing:
        return False
    return True


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_answer_is_the_stored_one(reslab, places: dict[str, Path], name: str) -> None:
    if "{native}" in QUESTIONS[name] and not has_kernels():
        pytest.skip("there are no kernels on this machine")
    *before, last = commands_of(name, places)
    for words in before:
        assert reslab(*words).returncode == 0
    done = reslab(*last)
    assert done.stdout, done.stderr
    status, stored = OLD_ANSWERS[name]
    assert done.returncode == status, done.stderr
    answer = json.loads(json.dumps(settled(json.loads(done.stdout), places)))
    assert not list(different(stored, answer))


def test_every_question_has_a_stored_answer() -> None:
    assert OLD_ANSWERS.keys() == QUESTIONS.keys()


def test_kept_scores_differ_from_computed_ones() -> None:
    """If they were equal, the answer would not show whether kept scores are used."""
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


def changes(old: Any, new: Any, place: str) -> list[str]:
    """Return a line for each field of an old recipe that is missing or has another value."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [f"{place}: {old} -> {new}"]
    return [
        line for key in old for line in changes(old[key], new.get(key, "absent"), f"{place}.{key}")
    ]


def test_every_recipe_keeps_its_keys_and_values(reslab) -> None:
    done = reslab("recipes", "--json")
    recipes = {fields["name"]: fields for fields in json.loads(done.stdout)}
    assert not changes(OLD_RECIPES, recipes, "recipes")


def finished(folder: Path, fields: dict[str, Any]) -> Path:
    """Write a finished run of an old recipe, with the results of a golden run of the same task."""
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(fields))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    source = GOLDEN / ("classifier" if fields["task"] == "classification" else "detector")
    for name in ("metrics.jsonl", "result.json", "detections.json"):
        if (source / name).exists():
            (folder / name).write_bytes((source / name).read_bytes())
    return folder


def kinds_of_recipes(task: str) -> list[dict[str, Any]]:
    """Return one recipe per kind; recipes of one kind differ only in name and size of the net."""
    kinds: dict[str, dict[str, Any]] = {}
    for fields in OLD_RECIPES.values():
        if fields["task"] == task:
            net = {key: fields["model"].get(key) for key in ("stem", "block", "shortcut", "sizes")}
            kinds.setdefault(json.dumps(fields | {"name": "", "model": net}), fields)
    return list(kinds.values())


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_old_recipe_files_open(reslab, tmp_path: Path, task: str) -> None:
    """A report parses the recipe of each of its runs and refuses unknown fields."""
    recipes = kinds_of_recipes(task)
    runs = [finished(tmp_path / fields["name"], fields) for fields in recipes]
    done = reslab("report", *runs, "--out", tmp_path / "page", "--json")
    assert done.returncode == 0, done.stderr
    assert [run["run"] for run in json.loads(done.stdout)["runs"]] == [str(run) for run in runs]
    assert len(runs) > 2
