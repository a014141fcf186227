"""Make every disk call of a command fail once; print counts as one JSON line.

The calls are recorded first. Then, for each call, the command runs in a new folder and this call
fails. Either the command finishes with the same files, or it prints one line, loses nothing, and
the same command, repeated, leaves the same files. No other files are left.

    python tests/faults/failing.py FOLDER [--sample N] [--seed N] [WORK]...
"""

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from tests.faults.disk import Disk
from tests.faults.works import WORKS, Work, begin, beside, files, prepare, run


def recorded_calls(template: Path, home: Path, work: Work) -> tuple[list[str], dict[str, str]]:
    """Run a work without a fault; return the names of its disk calls, and its files."""
    begin(template, home, work)
    disk = Disk(home)
    names = beside(home, "calls")

    class Recording:
        """Writes the names of the calls when the work has ended."""

        def __enter__(self) -> None:
            self.patches = disk.patched()
            self.patches.__enter__()

        def __exit__(self, *error: object) -> None:
            self.patches.__exit__(None, None, None)
            names.write_text(json.dumps(disk.calls))

    ended = run(home, work, Recording)
    assert ended.status == 0, ended.err
    return sorted(set(json.loads(names.read_text()))), files(home)


def fail_one(
    template: Path, home: Path, work: Work, call: str, number: int, expected: dict[str, str]
) -> str:
    """Run a work of which one disk call fails, and judge it; return how it ended."""
    begin(template, home, work)
    before = {name: files(home / name) for name in work.inputs}
    ended = run(home, work, Disk(home, call, number).patched)
    case = f"{work.name}: {call}, error {number}: status {ended.status}\n{ended.err}"
    assert "Traceback" not in ended.err, case
    if ended.status == 0:
        name = call.split()[1]
        if name.startswith("photos/") and name.removeprefix("photos/") in ended.err:
            return "finished without an image that is named"
        now = without_checkpoints(files(home))
        missing = without_checkpoints(expected).keys() - now.keys()
        assert all(name in ended.err for name in missing), case  # such as curves.svg
        assert now.items() <= expected.items(), case
        outcome = "finished" if not missing else "finished without a file that is named"
    else:
        assert ended.status in (1, 2), case
        assert ended.err.splitlines()[-1].startswith("reslab: "), case
        for name in work.inputs:
            now = files(home / name)
            lost = {file for file, digest in before[name].items() if now.get(file) != digest}
            assert not {file for file in lost if not may_change(file, name in work.kept)}, case
        outcome = "refused, then finished"
    if outcome != "finished" and without_checkpoints(files(home)) != without_checkpoints(expected):
        again = run(home, work)
        assert again.status == 0, f"{case}\nrepeated: {again.err}"
    left = {name for name in files(home) if name not in expected}
    assert not {name for name in left if "checkpoints/" not in name}, f"{case}\nleft: {left}"
    assert not {name for name in left if name.endswith(".tmp")}, f"{case}\nleft: {left}"
    assert without_checkpoints(files(home)) == without_checkpoints(expected), case
    return outcome


def may_change(file: str, kept: bool) -> bool:
    """Return whether a resumed run may change this file of its folder."""
    return not kept and (file == "metrics.jsonl" or file.startswith("checkpoints/"))


def without_checkpoints(found: dict[str, str]) -> dict[str, str]:
    """Leave out checkpoints: a run may finish although one was not written."""
    return {name: digest for name, digest in found.items() if "checkpoints/" not in name}


def fail_all(home: Path, names: Sequence[str], sample: int | None, seed: int) -> dict[str, object]:
    """Make the calls of some works fail, one by one; return counts by work and kind of call."""
    rng = random.Random(seed)
    template = prepare(home / "template", [WORKS[name] for name in names])
    cases = []
    for name in names:
        work = WORKS[name]
        calls, expected = recorded_calls(template, home / "whole" / name, work)
        cases += [(work, call, expected) for call in calls]
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    if sample:
        cases = rng.sample(cases, sample)
    for number, (work, call, expected) in enumerate(cases):
        place = home / str(number)
        try:
            outcome = fail_one(template, place, work, call, rng.randrange(6), expected)
        except AssertionError as wrong:
            outcome = "WRONG"
            print(wrong, file=sys.stderr)
        counts[work.name][outcome] += 1
        shutil.rmtree(place)
    return {"cases": len(cases), **counts}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("works", nargs="*", default=list(WORKS))
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.flush()
    print(json.dumps(fail_all(given.home.absolute(), given.works, given.sample, given.seed)))
