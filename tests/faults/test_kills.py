"""Killed runs of one and two processes, once resumed, end with the bits of an unkilled run."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.faults import killing


def kills(start_python, home: Path, count: int, seed: int, *changes: str) -> dict[str, Any]:
    done = start_python(killing.__file__, home, count, seed, *changes).end()
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_three_kills(start_python, tmp_path: Path, engine: str) -> None:
    facts = kills(start_python, tmp_path, 3, 5, f"engine={engine}")
    assert facts["kills"] == 3


NETS = {
    "stochastic depth": ["model.stochastic_depth=0.5"],
    "group norm": ["model.norm=group", "model.norm.groups=4"],
    "noise after batch norm": ["model.norm=noisy-batch"],
    "dropout, mixed parts": [
        "model.dropout=0.3", 'model.norm=["group","none","noisy-batch"]',
        'model.shortcut=["C",null,"A"]', "learning_rate=0.01",
    ],
}  # fmt: skip


@pytest.mark.parametrize("net", NETS)
def test_every_kind_of_net_is_resumed_to_the_same_bits(
    start_python, tmp_path: Path, net: str
) -> None:
    """By one and by two processes: its random layers depend on the seed and iteration alone."""
    facts = kills(start_python, tmp_path, 2, 11, *NETS[net])  # both in the middle of a run
    assert facts["kills"] == 2
    assert facts["of_two"] >= 1


@pytest.mark.slow
def test_a_hundred_kills(start_python, tmp_path: Path) -> None:
    facts = [
        kills(start_python, tmp_path / f"{seed}", 10, seed, f"engine={engine}")
        for seed, engine in enumerate(["native", "torch"] * 5)
    ]
    assert sum(fact["kills"] for fact in facts) == 100
    assert sum(fact["of_two"] for fact in facts) > 30
    assert sum(fact["with_checkpoints"] for fact in facts) > 50
