"""Run two source trees side by side on this machine and compare their results.

    python -m tests.compare_editions --first TREE --second TREE [--only NAME]... [--keep DIR]

from the repository's root. Each tree's command runs with its own PYTHONPATH and this Python, in
fp32 on one thread, on small generated data sets. The comparison covers the SHA-256 of weights and
state, the logs and files of short runs, the JSON of every verb (without values that depend on a
clock, a path or a version; of prose, only the numbers), and the second tree's results when it
resumes, evaluates and reports folders that the first tree made. The exit status is 1 if anything
differs.

Hashes differ between processors, so none is committed. --keep caches the first tree's results on
this machine, and the next comparison runs only the second tree.
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
FAULT = "fault of"  # a key that no case has
SHOWN = 5  # differences printed per case


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two trees and return the exit status."""
    options = parse_options(arguments)
    names = [name for name in (*CASES, *CROSSINGS) if wanted(name, options.only)]
    if options.list:
        print("\n".join(names))
        return 0
    if not names:
        print(f"no case matches {', '.join(options.only)}; see --list", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="editions-") as temporary:
        home = Path(temporary)
        keep = options.keep.resolve() / key_of(options.first) if options.keep else home / "first"
        data = keep.parent / f"data-{digest([SETS])}"
        data.mkdir(parents=True, exist_ok=True)
        sets.draw_all(data)
        first = Edition(options.first, keep, data, keep)
        second = Edition(options.second, home / "second", data, keep)
        equal = compare(first, second, names)
    print(f"\n{sum(equal)} of {len(equal)} equal, {time.monotonic() - began:.0f} s")
    return 0 if all(equal) else 1


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=Path, metavar="TREE", help="the reference tree")
    parser.add_argument("--second", type=Path, metavar="TREE", help="the tree under test")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help="a case, the beginning of its name, or a pattern with * and ?; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="folder for the first tree's results"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases and exit")
    options = parser.parse_args(arguments)
    if not options.list:
        for option, tree in (("--first", options.first), ("--second", options.second)):
            if tree is None or not (tree / "src" / "reslab").is_dir():
                parser.error(f"{option} must be a folder that holds src/reslab, got {tree}")
    return options


def wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(name.startswith(pattern) or fnmatch(name, pattern) for pattern in only)


def key_of(tree: Path) -> str:
    """Return a key for a tree's results here: its sources, this program, libraries, processor."""
    libraries = f"{platform.python_version()} {torch.__version__}"
    machine = f"{platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
    return "-".join([
        digest(sorted((tree / "src").rglob("*.py"))), digest(sorted(SETS.parent.glob("*.py"))),
        digest([], f"{libraries} {machine}"),
    ])  # fmt: skip


def digest(files: Sequence[Path], more: str = "") -> str:
    """Return the first digits of a SHA-256 over the names and contents of files, and a text."""
    made = hashlib.sha256(more.encode())
    for file in files:
        made.update(file.name.encode() + file.read_bytes())
    return made.hexdigest()[:8]


def compare(first: Edition, second: Edition, names: Sequence[str]) -> list[bool]:
    """Return whether each case is equal; print each outcome as soon as it is known."""
    width = max(map(len, names))
    equal = []
    with ThreadPoolExecutor(2) as pool:
        for name in names:
            if name in CROSSINGS and not cache_file(first, name).exists():
                for need in CROSSINGS[name].needs:
                    made(first, need)  # before both threads make it
            began = time.monotonic()
            expected = pool.submit(from_first, first, name)
            actual = pool.submit(attempt, second, first, name)
            wrong = list(differences(expected.result(), actual.result()))
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


def run_case(edition: Edition, first: Edition, name: str) -> Any:
    """Run a case in an edition and return its result as JSON would give it back."""
    result = CASES[name](edition) if name in CASES else CROSSINGS[name](edition, first)
    return json.loads(json.dumps(result))


def cache_file(first: Edition, name: str) -> Path:
    return first.home / f"{name}.json"


def from_first(first: Edition, name: str) -> Any:
    """Return the first edition's result, from the cache if it is there."""
    file = cache_file(first, name)
    if not file.exists():
        result = attempt(first, first, name)
        if FAULT in result:
            return result
        file.write_text(json.dumps(result))
    return json.loads(file.read_text())


def attempt(edition: Edition, first: Edition, name: str) -> Any:
    """Return an edition's result; an exception becomes a difference and stops no other case."""
    try:
        return run_case(edition, first, name)
    except Exception as error:
        print(f"{edition.tree}: {error or traceback.format_exc()}", file=sys.stderr)
        return {FAULT: f"{edition.tree}: {error}"}


if __name__ == "__main__":
    raise SystemExit(main())
