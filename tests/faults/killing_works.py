"""Kill commands by SIGKILL at random moments, and repeat them; print counts as one JSON line.

The repeated command must leave the same files as one that was never killed, and no others. Killed
runs of one and two processes are in killing.py.

    python tests/faults/killing_works.py FOLDER KILLS SEED
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

import torch
from tests.faults.failing import without_checkpoints
from tests.faults.works import WORKS, begin, end, files, prepare, run, start

KILLED = ("evaluate", "pack", "train on images", "evaluate on images", "report")


def kill(home: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill works until `kills` kills have hit a work in progress; return counts by work."""
    moments = random.Random(seed)
    template = prepare(home / "template", [WORKS[name] for name in KILLED])
    expected, durations = {}, {}
    for name in KILLED:
        place = begin(template, home / "whole" / name, WORKS[name])
        begun = time.monotonic()
        assert run(place, WORKS[name]).status == 0
        durations[name] = time.monotonic() - begun
        expected[name] = without_checkpoints(files(place))
    counts: Counter[str] = Counter()
    for name in cycle(KILLED):
        if counts.total() == kills:
            break
        place, work = begin(template, home / "killed", WORKS[name]), WORKS[name]
        process = start(place, work)
        time.sleep(moments.uniform(0.0, durations[name]))
        os.kill(process, signal.SIGKILL)
        killed = end(place, process).status == -signal.SIGKILL
        counts[name] += killed
        durations[name] *= 1.02 if killed else 0.8  # it varies with the load of the machine
        if without_checkpoints(files(place)) != expected[name]:  # else a pack is complete
            again = run(place, work)
            assert again.status == 0, f"{name}: {again.err}"
        assert without_checkpoints(files(place)) == expected[name], name
        shutil.rmtree(place)
    return dict(counts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(kill(Path(sys.argv[1]).absolute(), int(sys.argv[2]), int(sys.argv[3]))))
