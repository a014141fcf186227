"""Finished runs made by hand: what a study reads, without the time of training."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reslab.recipes import recipe

Finish = Callable[..., Path]


@pytest.fixture
def finish(tmp_path: Path) -> Finish:
    """Write a finished run of a recipe with given errors."""

    def write(
        name: str, seed: int = 1, train_error: float = 5.0, test_error: float = 10.0,
        changes: tuple[str, ...] = (),
    ) -> Path:  # fmt: skip
        it = recipe(name).with_changes(changes)
        run = tmp_path / f"{name}-{seed}"
        run.mkdir()
        (run / "recipe.json").write_text(it.model_dump_json())
        (run / "environment.json").write_text(
            json.dumps({"seed": seed, "data": None, "device": "cpu", "threads": 2, "commit": "abc"})
        )
        rows = []
        for k in range(1, 11):
            iteration = it.iterations * k // 10
            rows.append(
                {"kind": "train", "iteration": iteration, "learning_rate": 0.1, "loss": 1.0,
                 "train_error": train_error + 50 / k, "images_per_second": 100.0}
            )  # fmt: skip
            rows.append(
                {"kind": "eval", "iteration": iteration, "set": "test", "protocol": "one-crop",
                 "n": 360, "top1_error": test_error + 50 / k, "top5_error": 1.0, "loss": 1.0}
            )  # fmt: skip
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        report = {"set": "test", "protocol": "one-crop", "n": 360, "top1_error": test_error,
                  "top5_error": 0.5, "loss": 0.1}  # fmt: skip
        result = {"weights_sha256": "0" * 64, "state_sha256": "1" * 64, "iterations": it.iterations,
                  "seconds": 12.5, "train_error": train_error, "evaluation": [report]}  # fmt: skip
        (run / "result.json").write_text(json.dumps(result))
        return run

    return write
