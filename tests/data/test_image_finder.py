"""Find images by names that other programs and people gave them."""

from pathlib import Path

import pytest
from tests.data.labels.layouts import images

from reslab.data.image_finder import AMBIGUOUS, MISSING, ImageFinder, list_files

FILES = ("images/a.png", "images/b.JPG", "train/1.png", "test/1.png", "x/dog/7.png", "é.png")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("images/a.png", "images/a.png"),
        ("./images/a.png", "images/a.png"),
        ("../images/a.png", "images/a.png"),
        ("images\\a.png", "images/a.png"),
        ("C:\\data\\set\\images\\a.png", "images/a.png"),
        ("/home/me/a.png", "images/a.png"),  # `images/` alone may be missing
        ("a.png", "images/a.png"),
        ("a", "images/a.png"),
        ("A.PNG", "images/a.png"),
        ("b.jpg", "images/b.JPG"),
        ("b.png", "images/b.JPG"),
        ("dog/7.png", "x/dog/7.png"),
        ("Dog/7", "x/dog/7.png"),
        ("e\u0301.png", "é.png"),
        ("cat/7.png", None),
        ("c.png", None),
    ],
)
def test_one_name(name: str, file: str | None) -> None:
    finder = ImageFinder(FILES)
    first, found = finder.find(["images/a.png", name], [None, None])
    assert first == 0  # so that folders are compared
    assert (None if found == MISSING else FILES[found]) == file


def test_a_part_decides_between_equal_names() -> None:
    finder = ImageFinder(FILES)
    assert finder.find(["1", "1", "1"], ["train", "test", None]) == [2, 3, AMBIGUOUS]
    assert finder.find(["train/1.png"], [None]) == [2]


def test_if_no_path_fits_the_last_part_decides() -> None:
    finder = ImageFinder(FILES)
    assert finder.find(["old/dog1/7.png", "old/c.png"], [None, None]) == [4, MISSING]


def test_images_are_preferred_to_masks() -> None:
    finder = ImageFinder(("images/a.png", "masks/a.png"))
    assert finder.find(["a.png"], [None]) == [0]


def test_links_are_followed_outwards_only(tmp_path: Path) -> None:
    images(tmp_path / "elsewhere", "a.png")
    root = images(tmp_path / "root", "b/c.png", ".hidden/d.png", "@eaDir/e.png")
    (root / "notes.txt").write_text("")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "b/up").symlink_to(tmp_path)
    (root / "b/inside").symlink_to(root / "b")
    assert list_files(root) == (["again/a.png", "b/c.png"], ["notes.txt"])
