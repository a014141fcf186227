"""Kill runs of one and two processes by SIGKILL at random moments; print counts as one JSON line.

Each run is a fork of this process, in which tests/forks.py has imported everything, so that kills
hit the run and not its imports; torch has computed nothing here, so a fork is as good as a new
process. A killed run resumes with one process or two, drawn at random, and finishes.

    python tests/faults/killing.py FOLDER KILLS SEED [CHANGE]...

A CHANGE is a KEY=VALUE of the recipe, as for --set.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from reslab.cli import main
from reslab.training.checkpoint import checkpoints_in, read_checkpoint

CHANGES = [
    "iterations=30", "warmup=null", "eval_every=12", "checkpoint_every=4", "recompute_bn=2",
    "batch_size=32", "model.blocks=[1, 1, 1]", "precision=fp32",
]  # fmt: skip
MOST = 4  # runs per intended kill; a run that finishes first does not count
LIMIT = 60.0  # seconds after which a process counts as hanging


def start(out: Path, count: int, changes: Sequence[str]) -> list[int]:
    """Start or resume the run in `out` with `count` processes; return their ids."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    sets = [word for change in (*CHANGES, *changes) for word in ("--set", change)]
    started = []
    for rank in range(count):
        if process := os.fork():
            started.append(process)
            continue
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
            "RESLAB_PATIENCE": "20",  # if one is killed before the two are connected
        }  # fmt: skip
        status = 1
        try:
            status = main(["train", "digits-resnet20", "--out", str(out), *sets])
        finally:
            os._exit(status)
    STORES.append(store)  # it must outlive the processes
    return started


STORES: list[dist.TCPStore] = []


def ends(processes: list[int]) -> list[int]:
    """Wait for processes; return their exit statuses, or minus the signal that ended them."""
    limit = time.monotonic() + LIMIT
    codes: dict[int, int] = {}
    while len(codes) < len(processes):
        for process in processes:
            if process not in codes:
                process_ended, status = os.waitpid(process, os.WNOHANG)
                if process_ended:
                    codes[process] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > limit:
            for process in set(processes) - set(codes):
                os.kill(process, signal.SIGKILL)
            raise AssertionError(f"{set(processes) - set(codes)} of {processes} hang")
        time.sleep(0.005)
    STORES.clear()
    return [codes[process] for process in processes]


def state(out: Path) -> str:
    return json.loads((out / "result.json").read_text())["state_sha256"]


def has_checkpoints(out: Path) -> bool:
    """Return whether there are checkpoints; each must be readable, since renaming is atomic."""
    checkpoints = checkpoints_in(out / "checkpoints")
    for path in checkpoints:
        read_checkpoint(path)
    return bool(checkpoints)


def run(home: Path, kills: int, seed: int, changes: Sequence[str] = ()) -> dict[str, int]:
    """Kill runs until `kills` kills have hit a run in progress; return counts."""
    moments = random.Random(seed)
    begun = time.monotonic()
    assert ends(start(home / "whole", 1, changes)) == [0]
    duration = time.monotonic() - begun
    facts = {"kills": 0, "of_two": 0, "with_checkpoints": 0}
    for number in range(MOST * kills):
        if facts["kills"] == kills:
            break
        out = home / f"run{number}"
        count = 1 + number % 2
        processes = start(out, count, changes)
        time.sleep(moments.uniform(0.0, 1.0) * duration)
        chosen = moments.randrange(count)
        os.kill(processes[chosen], signal.SIGKILL)
        codes = ends(processes)
        killed = codes[chosen] == -signal.SIGKILL
        # the other process ends by itself, with a failure unless it had finished
        allowed = (0, 1) if killed else (0,)
        assert all(code in allowed for at, code in enumerate(codes) if at != chosen)
        facts["kills"] += killed
        facts["of_two"] += killed and count == 2
        duration *= 1.0 if killed else 0.8  # the machine was busier when it was measured
        facts["with_checkpoints"] += has_checkpoints(out)
        resuming = moments.choice([1, 2])
        assert ends(start(out, resuming, changes)) == [0] * resuming, f"kill {number}"
        assert state(out) == state(home / "whole"), f"kill {number}"
    return facts


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
