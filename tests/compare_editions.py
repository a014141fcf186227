"""Run two source trees beside each other on this machine and compare all that they give.

    python -m tests.compare_editions --first TREE --second TREE [--only NAME]... [--keep DIR]

from the repository's root. Each tree's command runs with its own PYTHONPATH and this Python, in
fp32 on one thread, on small sets that are drawn here. Compared are the SHA-256 of weights and
state, the logs and files of short runs, the JSON of every verb without what a clock, a path or a
version decides (prose by its numbers), and what comes of folders that the first tree made when the
second resumes, evaluates and reports them. The exit status is 1 if anything differs.

Such sums differ from processor to processor, so they are compared, never stored; but --keep holds
what the first tree gave on this machine, and the next comparison runs the second alone.
"""

import argparse
import hashlib
import json
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from tests.editions import sets
from tests.editions.cases import CASES
from tests.editions.crossing import CROSSINGS
from tests.editions.edition import Edition
from tests.editions.facts import differences
from tests.editions.runs import made

SETS = Path(sets.__file__)
FAULT = "fault of"  # a key of no case
SHOWN = 5  # differences of a case


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    given = parsed(arguments)
    names = [name for name in (*CASES, *CROSSINGS) if wanted(name, given.only)]
    if given.list:
        print("\n".join(names))
        return 0
    if not names:
        print(f"no case is called {', '.join(given.only)}; see --list", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="editions-") as temporary:
        home = Path(temporary)
        keep = given.keep.resolve() / key_of(given.first) if given.keep else home / "first"
        data = keep.parent / f"data-{digest([SETS])}"
        data.mkdir(parents=True, exist_ok=True)
        sets.draw_all(data)
        first = Edition(given.first, keep, data, keep)
        second = Edition(given.second, home / "second", data, keep)
        equal = compare(first, second, names)
    print(f"\n{sum(equal)} of {len(equal)} equal, {time.monotonic() - began:.0f} s")
    return 0 if all(equal) else 1


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=Path, metavar="TREE", help="the tree that is right")
    parser.add_argument("--second", type=Path, metavar="TREE", help="the tree that is judged")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help="a case, or several by * and ? or by how they begin; repeatable",
    )  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the first's are kept")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    given = parser.parse_args(arguments)
    if not given.list:
        for option, tree in (("--first", given.first), ("--second", given.second)):
            if tree is None or not (tree / "src" / "reslab").is_dir():
                parser.error(f"{option} {tree}: a folder with src/reslab in it")
    return given


def wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(name.startswith(it) or fnmatch(name, it) for it in only)


def key_of(tree: Path) -> str:
    """What decides the results of a tree here: its sources, this program, libraries, processor."""
    libraries = f"{platform.python_version()} {torch.__version__}"
    machine = f"{platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
    return "-".join([
        digest(sorted((tree / "src").rglob("*.py"))), digest(sorted(SETS.parent.glob("*.py"))),
        digest([], f"{libraries} {machine}"),
    ])  # fmt: skip


def digest(files: Sequence[Path], more: str = "") -> str:
    """The first digits of one SHA-256 of files, committed or not."""
    made = hashlib.sha256(more.encode())
    for file in files:
        made.update(file.name.encode() + file.read_bytes())
    return made.hexdigest()[:8]


def compare(first: Edition, second: Edition, names: Sequence[str]) -> list[bool]:
    """Whether each case is equal, printed as soon as it is known."""
    width = max(map(len, names))
    equal = []
    with ThreadPoolExecutor(2) as pool:
        for name in names:
            if name in CROSSINGS and not kept(first, name).exists():
                for need in CROSSINGS[name].needs:
                    made(first, need)  # before both want it
            began = time.monotonic()
            ours = pool.submit(from_first, first, name)
            theirs = pool.submit(attempt, second, first, name)
            wrong = list(differences(ours.result(), theirs.result()))
            equal.append(not wrong)
            verdict = "DIFFERS" if wrong else "equal"
            print(f"{name:{width}}  {verdict:7}  {time.monotonic() - began:5.1f} s", flush=True)
            for line in wrong[:SHOWN]:
                print(f"    {line}")
            if len(wrong) > SHOWN:
                print(f"    and {len(wrong) - SHOWN} more")
    for edition in (first, second):
        edition.close()
    return equal


def done_by(edition: Edition, first: Edition, name: str) -> Any:
    """What an edition makes of a case, as JSON has it."""
    found = CASES[name](edition) if name in CASES else CROSSINGS[name](edition, first)
    return json.loads(json.dumps(found))


def kept(first: Edition, name: str) -> Path:
    return first.home / f"{name}.json"


def from_first(first: Edition, name: str) -> Any:
    """What the first edition gives; what it gave before, where that is kept."""
    file = kept(first, name)
    if not file.exists():
        found = attempt(first, first, name)
        if FAULT in found:
            return found
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def attempt(edition: Edition, first: Edition, name: str) -> Any:
    """What an edition gives; a fault is a difference, and the other cases go on."""
    try:
        return done_by(edition, first, name)
    except Exception as error:
        print(f"{edition.tree}: {error or traceback.format_exc()}", file=sys.stderr)
        return {FAULT: f"{edition.tree}: {error}"}


if __name__ == "__main__":
    raise SystemExit(main())
