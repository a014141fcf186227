"""Labels in arrays: numbers or names, in a column or one-hot, and the names of numbers."""

from pathlib import Path

import numpy as np
import pytest

from reslab.data.array_sets.files import StoredArray, stored_arrays
from reslab.data.array_sets.labels import Values, named_classes, read_labels, read_names


def stored(tmp_path: Path, values: np.ndarray) -> StoredArray:
    np.save(tmp_path / "y.npy", values)
    (array,), _ = stored_arrays(tmp_path / "y.npy", [tmp_path / "y.npy"])
    return array


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([2, 0, 7], np.uint8), [2, 0, 7]),
        (np.array([[2], [0], [7]]), [2, 0, 7]),
        (np.array([2.0, 0.0, 7.0]), [2, 0, 7]),
        (np.array([True, False, True]), [1, 0, 1]),
        (np.eye(3)[[2, 0, 1]], [2, 0, 1]),
        (np.eye(3, dtype=bool)[[2, 0, 1]], [2, 0, 1]),
        (np.array(["b", "é", "a"]), ["b", "é", "a"]),
        (np.array([["b"], ["c"], ["a"]]), ["b", "c", "a"]),
        (np.array([b"b", "é".encode(), b"a"]), ["b", "é", "a"]),
    ],
)
def test_labels_of_every_kind(tmp_path: Path, values: np.ndarray, expected: Values) -> None:
    assert read_labels(stored(tmp_path, values), 3) == expected


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([1, 2]), r"has 2 labels for 3 images"),
        (np.array([1, 2, -1]), r"y\[2\] is -1: class numbers are not negative"),
        (np.array([1, 0.5, 2]), r"y\[1\] is 0.5: labels are names or whole numbers"),
        (np.array([1, np.nan, 2]), r"y\[1\] is nan"),
        (np.array([[0, 1], [1, 1], [1, 0]]), r"y\[1\] has several classes among 2 columns"),
        (np.array([[0, 1], [0.5, 0.5], [1, 0]]), r"y\[1\] has not a single 1 among 2"),
        (np.array([[0, 1], [0, 0], [1, 0]]), r"y\[1\] has not a single 1 among 2"),
        (np.array([[3, 41], [4, 1], [1, 7]]), r"y\[0\] has not a single 1"),
        (np.zeros((3, 2, 2)), r"has the shape \[3, 2, 2\]"),
        (np.array([["a", "b"]] * 3), r"has the shape \[3, 2\]"),
        (np.array(["a", " ", "b"]), r"y\[1\] is empty"),
        (np.array([b"a", b"\xff", b"b"]), r"y\[1\] is not UTF-8 text"),
        (np.array(["a", "\ud800", "b"]), r"y\[1\] is not UTF-8 text"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path / 'y.npy'}: .*{reason}"):
        read_labels(stored(tmp_path, values), 3)


def test_classes_are_those_that_occur_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    array = stored(tmp_path, np.zeros(4))
    assert named_classes(array, [10, 2, 2, 9], (), "") == (
        ["2", "9", "10"], ["2", "9", "10"], [2, 0, 0, 1],
    )  # fmt: skip
    names = ("a", "b", "c", "d")
    ids, classes, positions = named_classes(array, [3, 0, 3, 1], names, "names")
    assert (ids, classes, positions) == (["0", "1", "3"], ["a", "b", "d"], [2, 0, 2, 1])
    assert named_classes(array, ["b", "a", "b"], names, "names")[0] == ["a", "b"]


def test_a_number_without_a_name_is_refused(tmp_path: Path) -> None:
    array = stored(tmp_path, np.zeros(4))
    with pytest.raises(ValueError, match=r"label 4 of image 1 is out of range, with 3 names in F"):
        named_classes(array, [0, 4, 1], ("a", "b", "c"), "F")
    with pytest.raises(ValueError, match="subtract 1 from all"):
        named_classes(array, [1, 2, 3], ("a", "b", "c"), "F")


def test_names_must_differ(tmp_path: Path) -> None:
    assert read_names(stored(tmp_path, np.array([["a"], ["b"]]))) == ("a", "b")
    with pytest.raises(ValueError, match="has 'a' several times"):
        read_names(stored(tmp_path, np.array(["a", "b", "a"])))
