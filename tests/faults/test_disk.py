"""Every disk call of a command may fail: it finishes the same, or says so and loses nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.faults import failing, killing_works
from tests.faults.disk import Disk
from tests.faults.works import SHORT, WORKS, Work, files, prepare, run, sets


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("template") / "runs", [WORKS["report"]])


def facts(start_python, script: Any, *arguments: object) -> dict[str, Any]:
    done = start_python(script.__file__, *arguments).end()
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def wrong(counts: dict[str, Any]) -> int:
    return sum(counts[name].get("WRONG", 0) for name in counts if name in WORKS)


def test_a_few_calls_that_fail(start_python, tmp_path: Path) -> None:
    counts = facts(start_python, failing, tmp_path, "train", "pack", "report", "--sample", 8)
    assert counts["cases"] == 8
    assert wrong(counts) == 0


@pytest.mark.parametrize("verb", ["train", "resume", "evaluate", "report"])
def test_a_finished_run_on_a_read_only_disk_is_finished(
    template: Path, tmp_path: Path, verb: str
) -> None:
    home = tmp_path / "home"
    shutil.copytree(template / "finished", home / "finished")
    before = files(home)
    arguments = {
        "train": ["train", "digits-resnet20", *sets(SHORT), "--out", "finished"],
        "resume": ["resume", "finished"],
        "evaluate": ["evaluate", "finished", "--on", "digits"],
        "report": ["report", "finished", "--out", str(tmp_path / "page")],
    }
    work = Work(verb, arguments[verb])
    ended = run(home, work, Disk(home, read_only=True).patched)
    assert (ended.status, "read-only" in ended.err) == (0, False), ended.err
    assert files(home) == before


def test_three_kills_of_other_commands(start_python, tmp_path: Path) -> None:
    counts = facts(start_python, killing_works, tmp_path, 3, 0)
    assert sum(counts.values()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_every_call_that_fails(start_python, tmp_path: Path, work: str) -> None:
    counts = facts(start_python, failing, tmp_path, work)
    assert counts["cases"] > 20
    assert wrong(counts) == 0


@pytest.mark.slow
def test_a_hundred_kills_of_other_commands(start_python, tmp_path: Path) -> None:
    counts = facts(start_python, killing_works, tmp_path, 100, 1)
    assert sum(counts.values()) == 100
