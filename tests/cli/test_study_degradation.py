"""`reslab study degradation` as `make study` calls it, at full length."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_depth_hurts_plain_nets_and_not_residual_ones(tmp_path: Path) -> None:
    command = ["study", "degradation", "--jobs", "2", "--out", str(tmp_path / "study"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "reslab", *command], capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    errors = {Path(run["run"]).name: run["train_error"] for run in runs}
    assert errors["plain56-seed1"] > errors["plain20-seed1"] + 10
    assert errors["resnet56-seed1"] < 5
    assert done.stderr.startswith("reslab: 4 runs of 320 iterations, 2 at a time")
    assert " left\n" in done.stderr
