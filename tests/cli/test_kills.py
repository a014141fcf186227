"""Twenty runs killed by SIGKILL at random moments end with the same bits once resumed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHANGES = ("--set", "iterations=150", "--set", "checkpoint_every=10", "--set", "recompute_bn=5")
KILLS = 20


def command(out: Path) -> list[str]:
    return [sys.executable, "-m", "reslab", "train", "digits-resnet20", "--out", str(out), *CHANGES]


def state(out: Path) -> str:
    return json.loads((out / "result.json").read_text())["state_sha256"]


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begun = time.monotonic()
    subprocess.run(command(tmp_path / "whole"), check=True, env=environment)
    duration = time.monotonic() - begun
    moments = random.Random(0)
    killed = 0
    for number in range(KILLS):
        out = tmp_path / f"killed{number}"
        process = subprocess.Popen(command(out), env=environment)
        time.sleep(moments.uniform(0.1, 0.95) * duration)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if number % 2:  # every second time the newest checkpoint is truncated too
            for newest in sorted((out / "checkpoints").glob("*.safetensors"))[-1:]:
                newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
        subprocess.run(command(out), check=True, env=environment)
        assert state(out) == state(tmp_path / "whole"), f"kill {number}"
    assert killed > KILLS // 2  # most kills hit the run before its end
