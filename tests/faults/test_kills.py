"""Killed runs of one and two processes, once resumed, end with the bits of an unkilled run."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.faults import killing


def kills(start_python, home: Path, count: int, seed: int) -> dict[str, Any]:
    done = start_python(killing.__file__, home, count, seed).end()
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_five_kills(start_python, tmp_path: Path) -> None:
    facts = kills(start_python, tmp_path, 5, seed=5)
    assert facts["kills"] == 5


@pytest.mark.slow
def test_a_hundred_kills(start_python, tmp_path: Path) -> None:
    facts = [kills(start_python, tmp_path / f"{seed}", 10, seed) for seed in range(10)]
    assert sum(fact["kills"] for fact in facts) == 100
    assert sum(fact["of_two"] for fact in facts) > 30
    assert sum(fact["with_checkpoints"] for fact in facts) > 50
