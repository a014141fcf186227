"""The blocks of code in docs/extending.md: found, shortened, and run, one section per process.

As a script, `python examples.py SECTION FOLDER` runs the blocks of a section in a folder, in order,
and writes what each prints to outputs.json there.
"""

import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "extending.md"
OUTPUTS = "outputs.json"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\w+)\.py\n")  # the first line of a block that is a file
SHORTER = {  # as the beginning of the document says
    "(iterations=300": "(iterations=6, recompute_bn=2",
    '"iterations": 300': '"iterations": 6, "recompute_bn": 2',
    '"iterations=300"': '"iterations=6", "recompute_bn=2"',
    "--set iterations=300": "--set iterations=6 --set recompute_bn=2",
    "range(300)": "range(6)",
    "keep_every=100": "keep_every=2",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of code in a section of the document."""

    section: str
    language: str
    line: int  # of its first line of code, from 1
    code: str


def blocks_in(text: str) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    blocks = []
    for fence in FENCE.finditer(text):
        before = text[: fence.start()]
        section = re.findall(r"^## (.*)$", before, re.MULTILINE)[-1]
        blocks.append(Block(section, fence[1], before.count("\n") + 2, fence[2]))
    return blocks


def shortened(code: str) -> str:
    """Return a block with fewer iterations."""
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    return code


def run_block(block: Block, names: dict[str, Any]) -> str:
    """Run a block in the current folder, with the names of earlier blocks; return its output."""
    code = shortened(block.code)
    with redirect_stdout(StringIO()) as output:
        if file := FILE.match(code):
            Path(f"{file[1]}.py").write_text(code)
            import_module(file[1])
        elif block.language == "python":
            # at its line in the document, which a traceback then shows
            exec(compile("\n" * (block.line - 1) + code, str(DOCUMENT), "exec"), names)
        else:
            assert block.language == "sh", f"line {block.line}: {block.language!r}"
            for line in code.splitlines():
                run_command(shlex.split(line))
    return output.getvalue()


def run_command(words: Sequence[str]) -> None:
    """Run a line of shell, which must be a reslab command."""
    from reslab.cli import main

    assert words[0] == "reslab"
    if status := main(list(words[1:])):
        raise RuntimeError(f"{shlex.join(words)} ends with status {status}")


def run_section(section: str, folder: Path) -> None:
    """Run the blocks of a section in a folder, and write what each prints to OUTPUTS."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    names: dict[str, Any] = {"__name__": "__main__"}
    outputs: list[str] = []
    for block in blocks_in(DOCUMENT.read_text()):
        if block.section == section and block.language == "text":  # printed by the block before
            assert outputs[-1].endswith(block.code), f"line {block.line}: printed {outputs[-1]}"
        elif block.section == section:
            outputs.append(run_block(block, names))
    (folder / OUTPUTS).write_text(json.dumps(outputs))


if __name__ == "__main__":
    run_section(sys.argv[1], Path(sys.argv[2]))
