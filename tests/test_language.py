"""Plain English: how docstrings begin, and one word each for image, callback and deviation."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from reslab.cli import VERBS, main, verb_name

ROOT = Path(__file__).parents[1]
START = re.compile(r"(Of|The same|Those|That|What is)\b")
WORD = re.compile(r"(?<![a-z])(?:pictures?|tells?|telling|told|departures?)(?![a-z])", re.I)
# Recipe fields and JSON keys, which existing files use, and a folder that may hold COCO's images:
# names that stay, each only in the files named here
CONTRACTS = {
    "docs/deviations.md": ("`pictures.mean=channel`", "`pictures.bad_limit`"),
    "src/reslab/api/check.py": ('"pictures"',),
    "src/reslab/api/export_images.py": ('"pictures"',),
    "src/reslab/api/plan.py": ('"pictures"', '"pictures_per_second"'),
    "src/reslab/api/test_sets.py": ('"pictures"',),
    "src/reslab/cli/pack.py": ("part.pictures",),
    "src/reslab/data/boxes/tree.py": ('"pictures"',),
    "src/reslab/data/shards/writer.py": ("pictures: int",),
    "src/reslab/evaluation/mistakes.py": ("picture: str", "picture=thumbnail", 'entry["picture"]'),
    "src/reslab/evaluation/score_cache.py": ('"pictures"',),
    "src/reslab/recipes/classification.py": ('data="pictures"', "pictures=PhotographSettings"),
    "src/reslab/recipes/own.py": ('data="pictures"', "pictures=PhotographSettings"),
    "src/reslab/studies/page/report.html.j2": ("mistake.picture",),
    "src/reslab/training/classification.py": ('"pictures"',),
    "src/reslab/training/recipe.py": (
        '"pictures"', "pictures: PhotographSettings", "self.pictures",
    ),
    "src/reslab/training/setup.py": ('"pictures"', "recipe.pictures"),
}  # fmt: skip


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))


@cache  # two tests read every file
def names_and_docstrings(source: str) -> tuple[list[str], list[str]]:
    """Return the names that a file defines, attributes and parameters included, and docstrings."""
    names, docstrings = [], []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.arg(arg=name):
                names.append(name)
            case ast.AsyncFunctionDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.append(name)
            case ast.Attribute(attr=name, ctx=ast.Store()):
                names.append(name)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstrings.append(ast.get_docstring(node) or "")
    return names, docstrings


def bad_beginnings(source: str) -> list[str]:
    """Return the first lines of docstrings that do not begin with what a thing is or does."""
    _, docstrings = names_and_docstrings(source)
    return [text.splitlines()[0] for text in docstrings if START.match(text)]


def words_in(text: str, contracts: tuple[str, ...] = ()) -> list[str]:
    """Return the unwanted words in a text, also in parts of names, except within `contracts`."""
    for contract in contracts:
        text = re.sub(re.escape(contract) + r"(?![a-zA-Z_])", "", text)
    return WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))


def words_of_code(source: str) -> list[str]:
    """Return the unwanted words in a file's names, docstrings and comments."""
    names, docstrings = names_and_docstrings(source)
    comments = re.findall(r"(?:^|\s)# .*", source, re.M)
    return words_in("\n".join([*names, *docstrings, *comments]))


def test_docstrings_begin_with_what_a_thing_is_or_does() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in python_files("src", "tests", "benchmarks")
        for line in bad_beginnings(path.read_text())
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ('"""Of a run, its name."""', 1),
        ('class Set:\n    """The same for sets that are open."""', 1),
        ('def f():\n    """Those that no box suppresses."""', 1),
        ('async def f():\n    """That of the whole."""', 1),
        ('class A:\n    def f(self):\n        """\n        What is left out.\n        """', 1),
        ('"""Offsets of the crops, and the same for boxes."""\ndef f():\n    "Thatch."', 0),
        ('text = "Of a run"', 0),
    ],
)
def test_a_docstring_with_a_bad_beginning_is_found(source: str, wrong: int) -> None:
    assert len(bad_beginnings(source)) == wrong


def test_package_and_documents_use_the_fields_words() -> None:
    """All text of a file is checked: names, docstrings, comments and messages."""
    texts = [path for path in (ROOT / "src").rglob("*") if path.suffix in (".py", ".j2", ".typed")]
    wrong = []
    for path in (*texts, ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        name = str(path.relative_to(ROOT))
        text = path.read_text()
        for contract in CONTRACTS.get(name, ()):
            assert contract in text, f"{name} has no {contract} any more: remove it from the list"
        wrong += [f"{name}: {word}" for word in words_in(name)]
        for number, line in enumerate(text.splitlines(), 1):
            for word in words_in(line, CONTRACTS.get(name, ())):
                wrong.append(f"{name}:{number}: {word}")
    assert not wrong


def test_tests_and_benchmarks_use_the_fields_words() -> None:
    """Strings are not checked: many are the keys and fields of contracts."""
    wrong = []
    for path in python_files("tests", "benchmarks"):
        name = str(path.relative_to(ROOT))
        wrong += [f"{name}: {word}" for word in words_in(name) + words_of_code(path.read_text())]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def read_picture(Tell, told_of): ...", ["picture", "Tell", "told"]),
        ("class PictureSet(ImageSet): ...", ["Picture"]),
        ("self.pictures2 = on_event.tell()", ["pictures", "tell"]),
        ('raise ValueError(f"{file} tells no {departure}")  # PICTURES', [
            "tells", "departure", "PICTURES",
        ]),
        ('"pictures" in key, "pictures_seen", "a pictures"', ["pictures", "pictures"]),
        ("an intelligent depicture, retold", []),
    ],
)  # fmt: skip
def test_a_words_use_is_found_in_any_text(text: str, words: list[str]) -> None:
    assert words_in(text, ('"pictures"',)) == words


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def test_it_is_told(): ...", ["told"]),
        ("class Picture: ...", ["Picture"]),
        ("lambda picture: 1", ["picture"]),
        ("async def tell(): ...", ["tell"]),
        ("self.told = 1", ["told"]),
        ("def f(*, told=1): ...", ["told"]),
        ("for picture in images: ...", ["picture"]),
        ("if (picture := 1): ...", ["picture"]),
        ('"""Departures of a run."""', ["Departures"]),
        ("x = 1  # tells apart", ["tells"]),
        ('recipe.pictures, facts["pictures"], own(pictures=None)', []),
    ],
)
def test_a_words_use_is_found_in_names_docstrings_and_comments(
    source: str, words: list[str]
) -> None:
    assert words_of_code(source) == words


@pytest.mark.parametrize("verb", ["", *map(verb_name, VERBS)])
def test_help_texts_use_the_fields_words(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert main([*verb.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"reslab {verb}".strip() in printed
    assert not words_in(printed)
