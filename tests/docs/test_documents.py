"""Files and headings named in the documents exist; the README lists every file of the package."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "reslab"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FILES = [
    f"/{path.relative_to(ROOT)}"
    for folder in ("src", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".h", ".cpp")
]
CODE = re.compile(r"`([\w./-]+\.(?:py|h|cpp))`")
LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]+))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINE = re.compile(r"( *)((?:\w+(?:/|\.py) ?)+) {2,}\S")  # of the tree: names and their description


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_links_exist(document: Path) -> None:
    text = document.read_text()
    names = CODE.findall(text)
    assert not [name for name in names if not any(file.endswith(f"/{name}") for file in FILES)]
    for file, anchor in LINK.findall(text):
        target = document.parent / file if file else document
        assert target.exists(), file
        assert not anchor or anchor in anchors(target.read_text()), f"{file}#{anchor}"


def anchors(text: str) -> set[str]:
    """Return the names of a document's headings in links, as GitHub builds them."""
    return {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(text)
    }


def files_in_tree(text: str) -> set[str]:
    """Return the paths of all files in the README's listing of the source."""
    tree = text.partition("\nsrc/reslab/\n")[2].partition("\ntests/")[0]
    files, folders = set(), [""]
    for line in tree.splitlines():
        match = LINE.match(line)
        assert match, line
        depth = len(match[1]) // 2
        names = match[2].split()
        files |= {folders[depth - 1] + name for name in names if name.endswith(".py")}
        if names[0].endswith("/"):
            folders[depth:] = [folders[depth - 1] + names[0]]
    return files


def test_the_readme_lists_every_file() -> None:
    listed = files_in_tree((ROOT / "README.md").read_text())
    files = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    assert listed == {file for file in files if not file.endswith("__.py")}
