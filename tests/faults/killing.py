"""SIGKILL at random moments, over runs of one process and of two; one JSON line at the end.

Each run begins as a copy of this process by fork, so that the moments fall into the run and not
into its start; torch has computed nothing here, so a copy is as good as new. What a run imports is
imported by tests/forks.py, which starts this. What was killed goes on with one process or two,
whichever comes, until it is finished.

    python tests/faults/killing.py FOLDER KILLS SEED
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from reslab.cli import main
from reslab.training.checkpoint import checkpoints_in, read_checkpoint

CHANGES = [
    "iterations=30", "warmup=null", "eval_every=12", "checkpoint_every=4", "recompute_bn=2",
    "batch_size=32", "model.blocks=[1, 1, 1]", "precision=fp32",
]  # fmt: skip
MOST = 4  # runs for each kill
LIMIT = 60.0  # seconds; who takes longer hangs


def begin(out: Path, count: int) -> list[int]:
    """The run in `out`, begun or gone on with by `count` processes; their ids."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    changes = [word for change in CHANGES for word in ("--set", change)]
    started = []
    for rank in range(count):
        if process := os.fork():
            started.append(process)
            continue
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
            "RESLAB_PATIENCE": "20",  # for one that is killed before the two have met
        }  # fmt: skip
        status = 1
        try:
            status = main(["train", "digits-resnet20", "--out", str(out), *changes])
        finally:
            os._exit(status)
    STORES.append(store)  # it must outlive them
    return started


STORES: list[dist.TCPStore] = []


def ends(processes: list[int]) -> list[int]:
    """How each ended: its exit status, or minus the signal."""
    limit = time.monotonic() + LIMIT
    codes: dict[int, int] = {}
    while len(codes) < len(processes):
        for process in processes:
            if process not in codes:
                done, status = os.waitpid(process, os.WNOHANG)
                if done:
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


def must_have_a_whole_checkpoint(out: Path) -> bool:
    """Whether there are checkpoints; every one is whole, for they are put in place as a whole."""
    found = checkpoints_in(out / "checkpoints")
    for path in found:
        read_checkpoint(path)
    return bool(found)


def run(home: Path, kills: int, seed: int) -> dict[str, int]:
    """`kills` of them, each of a run of its own; one that is finished before counts for nothing."""
    moments = random.Random(seed)
    begun = time.monotonic()
    assert ends(begin(home / "whole", 1)) == [0]
    duration = time.monotonic() - begun
    facts = {"kills": 0, "of_two": 0, "with_checkpoints": 0}
    for number in range(MOST * kills):
        if facts["kills"] == kills:
            break
        out = home / f"run{number}"
        count = 1 + number % 2
        processes = begin(out, count)
        time.sleep(moments.uniform(0.0, 1.0) * duration)
        chosen = moments.randrange(count)
        os.kill(processes[chosen], signal.SIGKILL)
        codes = ends(processes)
        killed = codes[chosen] == -signal.SIGKILL
        # the other ends by itself, as a failure unless it was done before
        allowed = (0, 1) if killed else (0,)
        assert all(code in allowed for at, code in enumerate(codes) if at != chosen)
        facts["kills"] += killed
        facts["of_two"] += killed and count == 2
        duration *= 1.0 if killed else 0.8  # it was measured on a machine that had more to do
        facts["with_checkpoints"] += must_have_a_whole_checkpoint(out)
        goes_on = moments.choice([1, 2])
        assert ends(begin(out, goes_on)) == [0] * goes_on, f"kill {number}"
        assert state(out) == state(home / "whole"), f"kill {number}"
    return facts


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
