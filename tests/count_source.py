"""Measure the source: files, lines, classes, and names that are defined in several files.

    python tests/count_source.py [TREE...]

Lines of code exclude blank lines, comments and docstrings. TREE is a checkout, by default the one
that holds this file; several are printed in columns.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

NOT_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip
WITH_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(text: str) -> int:
    """Count the lines of a module that hold more than a comment or a docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, WITH_DOCSTRING) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            assert docstring.end_lineno is not None
            lines -= set(range(docstring.lineno, docstring.end_lineno + 1))
    return len(lines)


def top_level_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines: classes, functions, variables."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))


def measure(source: Path) -> dict[str, int]:
    """Return the measures of the package in the folder `source`."""
    texts = [path.read_text() for path in sorted(source.rglob("*.py"))]
    trees = [ast.parse(text) for text in texts]
    names = Counter(name for tree in trees for name in set(top_level_names(tree)))
    nodes = [node for tree in trees for node in ast.walk(tree)]
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {
        "files": len(texts),
        "lines": sum(text.count("\n") for text in texts),
        "lines of code": sum(map(code_lines, texts)),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "names in several files": sum(count > 1 for count in names.values()),
        "lines of the longest file": max(text.count("\n") for text in texts),
        "lines of the longest function": max(lengths),
    }


def main() -> None:
    trees = [Path(argument) for argument in sys.argv[1:]] or [Path(__file__).parents[1]]
    columns = [measure(tree / "src" / "reslab") for tree in trees]
    for name in columns[0]:
        print(f"{name:30}", *(f"{column[name]:>10,}" for column in columns))


if __name__ == "__main__":
    main()
