"""Images that a user names, and rows of detections, without a model."""

from pathlib import Path

import pytest

from reslab.api.drawings import detection_row, drawing_paths
from reslab.api.inputs import STDIN, InputImage, find_images
from reslab.detection.predict import Detection


def test_images_are_listed_in_order_and_other_files_counted(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "deep/c.webp", ".git/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named = str(tmp_path / "notes.txt")  # a file named explicitly is tried whatever its suffix
    images, left_out = find_images([named, STDIN, str(tmp_path)])
    assert [image.file for image in images[:2]] == [named, STDIN]
    assert [image.name for image in images[2:]] == ["a.PNG", "b.jpg", "deep/c.webp"]
    assert left_out == {".txt": 1}
    with pytest.raises(ValueError, match="given twice"):
        find_images([STDIN, STDIN])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no images \("):
        find_images([str(tmp_path / "empty")])


def test_drawings_keep_their_names_or_get_numbers() -> None:
    files = [
        ("x/a.png", "x"),
        ("x/in/A.JPG", "x"),
        ("y/A.PNG", None),
        ("a.webp", None),
        (STDIN, None),
    ]
    targets = drawing_paths([InputImage(*file) for file in files], Path("out"))
    names = [target.relative_to("out").as_posix() for target in targets.values()]
    assert names == ["a.png", "in/A.JPG", "A-2.png", "a-3.png", "standard-input.png"]


def test_a_row_worked_by_hand() -> None:
    found = Detection("dog", 0.98765432, (1.004, 2, 11.5, 30.25), "18")
    expected = {"image_id": "x.jpg", "category_id": 18, "bbox": [1.0, 2, 10.5, 28.25]}
    assert detection_row("x.jpg", found) == expected | {"score": 0.987654}
    for id_ in ("018", "tiger", "²", ""):
        assert detection_row("x.jpg", Detection("dog", 1, (0, 0, 1, 1), id_))["category_id"] == id_
