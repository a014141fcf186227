"""Runs of one process and of two that are killed end as if nothing had been."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KILLING = Path(__file__).with_name("killing.py")


def kills(home: Path, count: int, seed: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(KILLING), str(home), str(count), str(seed)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_five_kills(tmp_path: Path) -> None:
    facts = kills(tmp_path, 5, seed=5)
    assert facts["kills"] == 5


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path) -> None:
    facts = kills(tmp_path, 100, seed=1)
    assert facts["kills"] == 100
    assert facts["of_two"] > 30
    assert facts["with_checkpoints"] > 50
