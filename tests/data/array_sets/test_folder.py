"""Sets of arrays: found by the words in their names, else by shape, else refused."""

import re
from pathlib import Path

import numpy as np
import pytest

from reslab.data.array_sets.folder import open_arrays, part_of_path, role_of
from reslab.data.datasets import EncodedImages, Splits
from reslab.data.folder import open_folder, open_whole_folder, read_folder
from reslab.data.shards.writer import Packing, pack_sets

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 8, 8), np.uint8)
Y = np.arange(20) % 2
RAGGED = np.empty(2, object)  # of images of several sizes
RAGGED[:] = [X[0], X[1, :5]]
Arrays = dict[str, np.ndarray]


def save(place: Path, arrays: Arrays) -> Path:
    """Write one .npz file or, into a folder, an .npy file per array."""
    if place.suffix:
        np.savez(place, **arrays)  # pyrefly: ignore
        return place
    for name, values in arrays.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(place / name, values)
    return place


def pairs(images: EncodedImages) -> list[tuple[bytes, str]]:
    """Return the pixels and the class of each image."""
    return [
        (images.image(row)[..., 0].tobytes(), images.classes[label])
        for row, label in enumerate(images.labels.tolist())
    ]


def expected(first: int, last: int) -> list[tuple[bytes, str]]:
    return [(X[row].tobytes(), str(Y[row])) for row in range(first, last)]


@pytest.mark.parametrize("kind", ["set.npz", "folder"])
@pytest.mark.parametrize(
    "names",
    [
        "x_train y_train x_test y_test",
        "X_train Y_train X_val Y_val",
        "train_images train_labels val_images val_labels",
        "train_x train_y test_x test_y",
        "xtrain ytrain xtest ytest",
        "Xtr Ytr Xte Yte",
        "trainImages trainLabels testImages testLabels",
        "train-data train-targets valid-data valid-targets",
        "images labels test_images test_labels",
        "training_set_x training_set_y dev_set_x dev_set_y",
        "train/images train/labels test/images test/labels",
        "train/x train/y validation/x validation/y",
        "imgs_train lbls_train imgs_eval lbls_eval",
    ],
)
def test_two_parts_by_their_names(tmp_path: Path, names: str, kind: str) -> None:
    values = (X[:12], Y[:12], X[12:], Y[12:])
    place = save(tmp_path / kind, dict(zip(names.split(), values, strict=True)))
    sets = read_folder(place)
    assert isinstance(sets, Splits)
    assert pairs(sets.train) == expected(0, 12)
    assert pairs(sets.test) == expected(12, 20)
    assert pairs(open_whole_folder(place)) == expected(12, 20)


@pytest.mark.parametrize(
    "names", ["images labels", "x y", "X y", "data target", "arr_0 arr_1", "what ever", "a classes"]
)
def test_an_unsplit_set_is_split_always_alike(tmp_path: Path, names: str) -> None:
    place = save(tmp_path / "set.npz", dict(zip(names.split(), (X, Y), strict=True)))
    whole = read_folder(place)
    assert isinstance(whole, EncodedImages)
    assert whole.name == "set"
    assert pairs(whole) == expected(0, 20)
    sets = open_folder(place)
    assert (len(sets.train), len(sets.test)) == (16, 4)
    assert sorted(pairs(sets.train) + pairs(sets.test)) == sorted(expected(0, 20))
    assert open_folder(place).test.files == sets.test.files


def test_a_training_part_alone_is_split_with_a_note(tmp_path: Path) -> None:
    place = save(tmp_path / "set.npz", {"x_train": X, "y_train": Y})
    whole = read_folder(place)
    assert isinstance(whole, EncodedImages)
    assert whole.notes == (
        f"x_train and y_train of {place} are split, as there is no validation part",
    )


def test_files_of_a_folder_may_be_the_parts(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=X[:12], labels=Y[:12])
    np.savez(tmp_path / "test.npz", images=X[12:], labels=Y[12:])
    sets = open_folder(tmp_path)
    assert pairs(sets.train) == expected(0, 12)
    assert pairs(sets.test) == expected(12, 20)
    assert sets.train.files[3] == "train/images[3]"
    (tmp_path / "test.npz").unlink()
    assert len(open_folder(tmp_path).train) == 10


def test_names_of_classes_are_found(tmp_path: Path) -> None:
    names = np.array(["cat", "dog", "never seen"])
    for key in ("classes", "class_names", "label_names", "target_names"):
        place = save(tmp_path / f"{key}.npz", {"x": X, "y": Y, key: names})
        images = open_whole_folder(place)
        assert (images.ids, images.classes) == (("0", "1"), ("cat", "dog"))
        assert images.notes == ()
    (tmp_path / "classes.csv").write_text("index,id,name\n0,1,one\n1,0,nought\n")
    arranged = open_whole_folder(place)
    assert (arranged.ids, arranged.classes) == (("1", "0"), ("one", "nought"))
    assert [arranged.ids[label] for label in arranged.labels] == [str(label) for label in Y]


def test_text_and_numbers_may_be_labels(tmp_path: Path) -> None:
    place = save(tmp_path / "set.npz", {"x": X, "classes": np.array(["dog", "cat"])[Y]})
    images = open_whole_folder(place)
    assert images.ids == images.classes == ("cat", "dog")
    assert images.labels.tolist() == (1 - Y).tolist()


def test_what_is_not_read_is_noted(tmp_path: Path) -> None:
    arrays = {"x_train": X, "y_train": Y, "x_val": X, "y_val": Y, "x_test": X, "y_test": Y}
    place = save(tmp_path / "set.npz", arrays | {"mean": X[0], "ids": Y, "history": np.array([{}])})
    sets = read_folder(place)
    assert isinstance(sets, Splits)
    assert sets.train.notes == (f"not read in {place}: x_test, y_test, mean, ids, history",)
    unlabelled = save(tmp_path / "kaggle.npz", {"x_train": X, "y_train": Y, "x_test": X})
    whole = read_folder(unlabelled)
    assert isinstance(whole, EncodedImages)
    assert f"not read in {unlabelled}: x_test" in whole.notes


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"a": X[0]}, "has no images with labels: expected x_train and y_train"),
        ({"w1": Y, "w2": X.reshape(20, 64)}, "not w1 int64 [20], w2 uint8 [20, 64]"),
        ({"x": X}, "has no labels: expected"),
        ({"x": RAGGED, "y": Y[:2]}, "x in {place} holds Python objects"),
        ({"x": X, "y": Y.astype(object)}, "y in {place} holds Python objects"),
        ({"x_train": X, "y_test": Y}, "has no labels"),
        ({"x": X, "y": Y[:-1]}, "has the shape [20, 8, 8], but y has 19 labels"),
        ({"x": np.moveaxis(X, 0, -1), "y": Y}, "save np.moveaxis(images, 2, 0)"),
        ({"x": X, "y": Y, "labels": Y}, "has several arrays for one part"),
        ({"x_train": X, "images_train": X, "y_train": Y}, "several arrays for train part"),
        ({"a": X, "b": Y, "c": Y}, "several arrays for one part: a uint8 [20, 8, 8], b int64"),
        ({"x_test": X, "y_test": Y}, "are for testing: there are no labels to train on"),
        ({"x": X, "y": Y * 0}, "x and y of"),
        ({"x_train": X, "y_train": Y, "x_val": X, "y_val": Y + 1}, "no net can learn it"),
        ({"x": X, "y": np.arange(20)}, "class '0' in x and y of {place} has one image"),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path: Path, arrays: Arrays, reason: str) -> None:
    place = save(tmp_path / "set.npz", arrays)
    with pytest.raises(ValueError, match=re.escape(reason.format(place=place))) as error:
        open_folder(place)
    if "one image" not in reason:
        assert str(place) in str(error.value)


def test_a_lone_test_part_can_be_evaluated(tmp_path: Path) -> None:
    place = save(tmp_path / "set.npz", {"x_test": X, "y_test": Y})
    assert pairs(open_whole_folder(place)) == expected(0, 20)


def test_a_packed_copy_is_the_same_set(tmp_path: Path) -> None:
    place = save(tmp_path / "set.npz", {"x": X, "y": Y, "x_test": X[:4], "y_test": Y[:4]})
    sets = open_folder(place)
    parts = {"train": sets.train, "validation": sets.test}
    pack_sets(parts, tmp_path / "packed", Packing(), lambda bad: None)
    packed = open_folder(tmp_path / "packed")
    assert pairs(packed.train) == pairs(sets.train)
    assert pairs(packed.test) == pairs(sets.test)
    assert packed.train.files == sets.train.files


def test_other_places_are_not_sets_of_arrays(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").touch()
    assert open_arrays(tmp_path, None) is None
    assert open_arrays(tmp_path / "labels.csv", None) is None


def test_words_of_names() -> None:
    assert role_of(("image_names",)) == "names"
    assert role_of(("mask",)) is None
    assert role_of(("train_images", "arr_0")) == "images"
    assert part_of_path(("xylophone",)) is None
    assert part_of_path(("train", "x_test")) == "test"
    assert part_of_path(("extra",)) is None
