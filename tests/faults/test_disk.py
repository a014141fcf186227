"""Every disk call of a command may fail: it finishes the same, or says so and loses nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.faults import failing, killing_works
from tests.faults.works import WORKS


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
