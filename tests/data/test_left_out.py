"""Lines about the files that are not read."""

import os
from pathlib import Path

import pytest

from reslab.data.left_out import LeftOut, count_of, shorten


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (1, "file", "1 file"),
        (2, "class", "2 classes"),
        (1200, "image", "1,200 images"),
        (3, "box", "3 boxes"),
    ],
)
def test_numbers_have_nouns(number: int, noun: str, words: str) -> None:
    assert count_of(number, noun) == words


def test_a_long_list_is_shortened() -> None:
    assert shorten("abc", 3) == "a, b, c"
    assert shorten("abcde", 3) == "a, b, c and 2 more"


def test_each_kind_has_a_line_and_the_most_frequent_suffix_is_first(tmp_path: Path) -> None:
    for name in ("a.txt", "b.TXT", "c.jxl", "noext", "classes.csv"):
        (tmp_path / name).touch()
    left_out, entries = LeftOut(), sorted(os.scandir(tmp_path), key=lambda entry: entry.name)
    for entry in entries:
        left_out.add(entry, is_link=False)
        left_out.add_beside(entry, is_folder=False)
    left_out.no_classes.append("docs")
    assert left_out.notes("val/") == (
        "5 files in val/ left out: 2 .txt, 1 .jxl, 1 .csv, 1 no suffix",
        "4 files beside the class folders in val/ left out: 2 .txt, 1 .jxl, 1 no suffix",
        "1 folder in val/ without images left out: docs",
    )
    assert LeftOut().notes("val/") == ()
