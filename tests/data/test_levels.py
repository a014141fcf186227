"""Subfolders of class folders, from the names of the images alone."""

from pathlib import Path

import pytest

from reslab.data.class_folders import Problem
from reslab.data.levels import check_levels, folders_in, levels_note


def files(**subfolders: str) -> dict[str, list[str]]:
    """Return ten images in each subfolder; "." is the class folder itself."""
    return {
        id_: sorted(
            path.replace("/./", "/")
            for name in names.split()
            for path in (f"{id_}/{name}/{number}.jpg" for number in range(10))
        )
        for id_, names in subfolders.items()
    }


def problems(classes: dict[str, list[str]], listed: tuple[str, ...] = ()) -> list[Problem]:
    found: list[Problem] = []
    check_levels(Path("set"), classes, listed, found.append)
    return found


def test_subfolders_count_unless_images_are_beside_them() -> None:
    (images,) = files(cat="a b").values()
    assert folders_in(images, "cat") == ("a", "b")
    assert folders_in([*images, "cat/0.jpg"], "cat") == ()
    assert folders_in([*images, "cat/0.jpg"], "cat", strays=0.1) == ("a", "b")
    assert folders_in(files(cat=". a")["cat"], "cat", strays=0.1) == ()


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (files(may="cat dog", june="dog cat"), "all have the same subfolders (cat, dog)"),
        (files(may="cat dog", june="Cat"), "all have the same subfolders (cat, dog)"),
        (files(a="cat dog eel", b="cat dog fox"), "have subfolders in common (cat, dog)"),
        (files(cat="train val", dog="train"), "set/cat has the parts train, val"),
        (files(cats_train=".", cats_test="."), "the parts of a class, as cats_train, cats_test"),
    ],
)
def test_folders_that_may_be_parts_are_one_problem(
    classes: dict[str, list[str]], words: str
) -> None:
    (problem,) = problems(classes)
    assert words in problem.refusal
    assert problem.refusal == problem.note
    assert problems(classes, tuple(classes)) == []  # a class list settles it


@pytest.mark.parametrize(
    "classes",
    [
        files(cat=".", dog="."),
        files(cat="images", dog="images"),  # one folder in each
        files(air="crow owl", sea="cod eel"),
        files(air="crow other", land="cow other", sea="cod other"),
        files(cat="a b", dog="."),
        files(train_station=".", test_track="."),
    ],
)
def test_classes_are_no_problem(classes: dict[str, list[str]]) -> None:
    assert problems(classes) == []


def test_two_levels_are_noted_if_every_class_has_them() -> None:
    (line,) = levels_note(files(air="crow owl", sea="cod eel"))
    assert line.endswith("list them in classes.csv, the first as air/crow")
    assert levels_note(files(air="crow owl", sea="cod")) == ()
    assert levels_note(files(air="crow owl", sea=". cod eel")) == ()
    assert levels_note({}) == ()
