import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch

from reslab.data.class_folders import FolderReader
from reslab.data.datasets import EncodedImages, FolderSplits, split_validation
from reslab.data.decode import BadImage
from reslab.data.folder import open_folder, open_whole_folder
from reslab.data.shards.writer import Packing, pack_sets


def image(seed: int) -> bytes:
    return simplejpeg.encode_jpeg(np.full((4, 4, 3), seed % 256, np.uint8))


def grow(root: Path, **counts: int) -> Path:
    """Create one folder of images per class; `train__cat` is cat/ in train/."""
    for name, count in counts.items():
        home = root.joinpath(*name.split("__"))
        home.mkdir(parents=True)
        for number in range(count):
            (home / f"{number:03}.jpg").write_bytes(image(number))
    return root


def by_class(images: EncodedImages) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for file, label in zip(images.files, images.labels.tolist(), strict=True):
        files.setdefault(images.ids[label], []).append(file)
    return files


def refused(folder: Path, validation: float = 0.2) -> str:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        open_folder(folder, validation=validation)
    return str(caught.value)


# class folders


def test_a_class_is_a_subfolder_with_all_images_below_it(tmp_path: Path) -> None:
    grow(tmp_path, dog=1, cat=2, cat__kittens__young=1)
    for name in ("upper.JPG", "a.jpeg", "b.PNG", "c.webp", "d.tiff"):
        (tmp_path / "dog" / name).write_bytes(image(0))
    for name in (".hidden.jpg", "notes.txt", "Thumbs.db", "jpg"):
        (tmp_path / "dog" / name).write_bytes(b"")
    (tmp_path / "loose.jpg").write_bytes(image(0))
    grow(tmp_path, **{".git": 1, "cat__.thumbnails": 1})
    (tmp_path / "__MACOSX").mkdir()
    whole = open_whole_folder(tmp_path)
    assert whole.ids == whole.classes == ("cat", "dog")
    assert by_class(whole) == {
        "cat": ["cat/000.jpg", "cat/001.jpg", "cat/kittens/young/000.jpg"],
        "dog": [
            f"dog/{name}"
            for name in ("000.jpg", "a.jpeg", "b.PNG", "c.webp", "d.tiff", "upper.JPG")
        ],
    }
    assert whole.labels.dtype == torch.int64
    assert whole.name == tmp_path.name
    assert whole.image(1).tolist() == np.full((4, 4, 3), 1).tolist()


def test_links_to_classes_and_files_are_followed_but_not_in_cycles(tmp_path: Path) -> None:
    real = grow(tmp_path / "real", dog=2, cat=2)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "dog").symlink_to(real / "dog")
    (linked / "cat").mkdir()
    (linked / "cat" / "one.jpg").symlink_to(real / "cat" / "000.jpg")
    (linked / "cat" / "round").symlink_to(linked)
    (linked / "cat" / "gone.jpg").symlink_to(real / "nowhere.jpg")
    whole = open_whole_folder(linked)
    assert whole.files == ["cat/gone.jpg", "cat/one.jpg", "dog/000.jpg", "dog/001.jpg"]
    with pytest.raises(BadImage, match=r"\Acat/gone\.jpg: cannot be read \(no such file"):
        whole.image(0)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    whole = open_whole_folder(grow(tmp_path, dog=2))
    (tmp_path / "dog" / "001.jpg").unlink()
    (tmp_path / "dog" / "001.jpg").mkdir()
    with pytest.raises(BadImage, match=r"\Adog/001\.jpg: cannot be read \(is a directory\)\Z"):
        whole.read("dog/001.jpg")


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    whole = open_whole_folder(grow(tmp_path, dog=1))
    (tmp_path / "dog" / "device.jpg").symlink_to(os.devnull)
    os.mkfifo(tmp_path / "dog" / "pipe.jpg")  # reading it would block forever
    for name in ("device", "pipe"):
        with pytest.raises(BadImage, match=rf"\Adog/{name}\.jpg: .* \(not a regular file but a"):
            whole.read(f"dog/{name}.jpg")


def test_a_cycle_of_links_is_not_a_class(tmp_path: Path) -> None:
    grow(tmp_path, dog=1, cat=1)
    (tmp_path / "round").symlink_to("round")
    assert open_whole_folder(tmp_path).ids == ("cat", "dog")


def test_the_reader_can_be_pickled(tmp_path: Path) -> None:
    whole = open_whole_folder(grow(tmp_path, dog=1))
    assert isinstance(whole.read, FolderReader)
    assert pickle.loads(pickle.dumps(whole.read))("dog/000.jpg") == image(0)


# splitting an unsplit folder


def test_a_split_is_stratified_and_complete(tmp_path: Path) -> None:
    sets = open_folder(grow(tmp_path, ant=2, bee=7, cow=30, dog=3), validation=0.2)
    train, test = by_class(sets.train), by_class(sets.test)
    assert {name: len(files) for name, files in test.items()} == {
        "ant": 1, "bee": 1, "cow": 6, "dog": 1,
    }  # fmt: skip
    assert (sets.train.name, sets.test.name) == ("train", "validation")
    whole = by_class(open_whole_folder(tmp_path))
    for name, files in whole.items():
        assert sorted(train[name] + test[name]) == files
        assert train[name] == sorted(train[name])
    most = open_folder(tmp_path, validation=0.99)
    assert most.train.labels.bincount().tolist() == [1, 1, 1, 1]


def test_a_split_depends_only_on_the_seed_and_the_files_of_the_class(tmp_path: Path) -> None:
    first = by_class(open_folder(grow(tmp_path, cow=30, dog=30)).test)
    assert by_class(open_folder(tmp_path).test) == first
    assert by_class(open_folder(tmp_path, seed=1).test)["cow"] != first["cow"]
    assert [name[4:] for name in first["cow"]] != [name[4:] for name in first["dog"]]
    grow(tmp_path, ant=5)
    again = by_class(open_folder(tmp_path).test)
    assert (again["cow"], again["dog"]) == (first["cow"], first["dog"])


def test_images_added_later_do_not_reorder_earlier_ones(tmp_path: Path) -> None:
    before = set(open_folder(grow(tmp_path, cow=30, dog=30)).test.files)
    for number in range(100, 110):
        (tmp_path / "cow" / f"{number}.jpg").write_bytes(b"")
    after = set(open_folder(tmp_path).test.files)
    # 6 of 30 cows are held out, and 8 of 40: an old cow leaves only if a new cow replaces it
    added = {file for file in after - before if file >= "cow/100.jpg"}
    assert len(after) == len(before) + 2
    assert len(before - after) <= len(added)
    assert {file for file in before if "dog" in file} <= after


def test_a_split_is_independent_of_the_order_of_the_images(tmp_path: Path) -> None:
    whole = open_whole_folder(grow(tmp_path, cow=10, dog=10))
    mixed = whole.take("mixed", torch.randperm(20, generator=torch.Generator().manual_seed(0)))
    expected = split_validation(whole, 0.3, 7)
    assert set(split_validation(mixed, 0.3, 7).test.files) == set(expected.test.files)


@pytest.mark.parametrize("validation", [0.0, 1.0, -0.1, 3.0, float("nan")])
def test_the_fraction_must_be_between_0_and_1(tmp_path: Path, validation: float) -> None:
    line = refused(grow(tmp_path, cow=5, dog=5), validation=validation)
    assert line == f"validation={validation}: the fraction must be between 0 and 1"


def test_the_images_of_ten_real_classes(shared: Path) -> None:
    imagenet = shared / "imagenet"
    sets = open_folder(imagenet / "val500", names=imagenet / "classes.csv")
    assert sets.train.labels.bincount().tolist() == [40] * 10
    assert sets.test.labels.bincount().tolist() == [10] * 10
    assert sets.test.classes[:2] == ("tench", "English springer")
    assert sets.test.ids[:2] == ("n01440764", "n02102040")
    assert sets.test.image(0).shape == (224, 224, 3)
    assert not set(sets.train.files) & set(sets.test.files)


# splits


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "val"), ("training", "validation"), ("Train", "Test"), ("train", "valid")],
)
def test_splits_are_recognised_by_their_names(tmp_path: Path, train: str, test: str) -> None:
    grow(tmp_path, **{f"{train}__cat": 3, f"{train}__dog": 2, f"{test}__dog": 1, "scripts": 0})
    sets = open_folder(tmp_path)
    assert by_class(sets.train) == {
        "cat": ["cat/000.jpg", "cat/001.jpg", "cat/002.jpg"],
        "dog": ["dog/000.jpg", "dog/001.jpg"],
    }
    assert by_class(sets.test) == {"dog": ["dog/000.jpg"]}  # cat is missing, which is allowed
    assert sets.test.labels.tolist() == [1]
    assert sets.test.ids == sets.train.ids == ("cat", "dog")
    assert (sets.train.name, sets.test.name) == ("train", "validation")
    assert sets.test.read("dog/000.jpg") == image(0)
    alone = open_whole_folder(tmp_path)
    assert (alone.name, alone.ids, alone.files) == ("validation", ("dog",), ["dog/000.jpg"])


def test_validation_takes_precedence_over_test(tmp_path: Path) -> None:
    grow(tmp_path, train__a=1, train__b=1, test__a=3, test__b=3, val__a=2, val__b=2)
    assert len(open_folder(tmp_path).test) == len(open_whole_folder(tmp_path)) == 4


def test_a_training_split_alone_is_split(tmp_path: Path) -> None:
    grow(tmp_path, train__a=5, train__b=5)
    sets = open_folder(tmp_path)
    assert (len(sets.train), len(sets.test)) == (8, 2)
    assert open_whole_folder(tmp_path).ids == ("a", "b")


def test_train_may_be_a_class(tmp_path: Path) -> None:
    grow(tmp_path, bus=2, train=2, car=2)
    assert open_folder(tmp_path).train.ids == ("bus", "car", "train")


def test_a_validation_split_alone_is_for_evaluation(tmp_path: Path) -> None:
    grow(tmp_path, val__a=5, val__b=5)
    assert len(open_whole_folder(tmp_path)) == 10
    assert refused(tmp_path) == f"{tmp_path} has val/ but no train/ to train on"


def test_a_class_only_in_validation_is_named(tmp_path: Path) -> None:
    grow(tmp_path, train__a=1, train__b=1, val__a=1, val__c=1)
    line = refused(tmp_path)
    assert line.startswith(f"class 'c' is in {tmp_path / 'val'} but not in {tmp_path / 'train'}")


# classes.csv


def write_names(path: Path, *rows: tuple[str, str]) -> Path:
    lines = [f"{index},{key},{name}" for index, (key, name) in enumerate(rows)]
    path.write_text("\n".join(["index,id,name", *lines]))
    return path


@pytest.mark.parametrize("place", ["classes.csv", "train/classes.csv"])
def test_classes_have_the_order_and_names_of_the_class_list(tmp_path: Path, place: str) -> None:
    grow(tmp_path, train__n1=2, train__n2=1, train__n3=3, val__n1=1, val__n3=1)
    rows = [("n9", "absent"), ("n3", "crane"), ("n1", "tench"), ("n2", "crane")]
    write_names(tmp_path / place, *rows)
    sets = open_folder(tmp_path)
    assert sets.train.ids == sets.test.ids == ("n3", "n1", "n2")
    assert sets.train.classes == sets.test.classes == ("crane", "tench", "crane")
    assert sets.train.labels.bincount().tolist() == [3, 2, 1]
    assert by_class(sets.train)["n1"] == ["n1/000.jpg", "n1/001.jpg"]
    assert sets.test.labels.tolist() == [1, 0]


def test_a_given_class_list_replaces_the_folders_list(tmp_path: Path) -> None:
    grow(tmp_path / "set", a=2, b=2)
    write_names(tmp_path / "set" / "classes.csv", ("a", "ours"), ("b", "too"))
    other = write_names(tmp_path / "other.csv", ("b", "bee"), ("a", "ant"))
    assert open_whole_folder(tmp_path / "set").classes == ("ours", "too")
    assert open_whole_folder(tmp_path / "set", names=other).classes == ("bee", "ant")
    assert open_folder(tmp_path / "set", names=other).test.ids == ("b", "a")


def test_a_class_that_is_not_listed_is_named(tmp_path: Path) -> None:
    grow(tmp_path, tench=2, goldfisch=2)
    path = write_names(tmp_path / "classes.csv", ("tench", "tench"), ("goldfish", "goldfish"))
    line = refused(tmp_path)
    assert line == f"{tmp_path}: class 'goldfisch' is not in {path}; did you mean 'goldfish'?"


# packed


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    source = open_whole_folder(grow(tmp_path / "source", ant=2, bee=7, cow=30))
    pack_sets({".": source}, tmp_path / "packed", Packing(), lambda bad: None)
    return tmp_path / "packed"


def same(left: EncodedImages, right: EncodedImages) -> bool:
    return (
        list(left.files) == list(right.files)
        and torch.equal(left.labels, right.labels)
        and (left.ids, left.classes) == (right.ids, right.classes)
        and all(left.read(file) == right.read(file) for file in left.files)
    )


def same_sets(left: FolderSplits, right: FolderSplits) -> bool:
    return same(left.train, right.train) and same(left.test, right.test)


def test_a_packed_folder_opens_like_the_folder(packed: Path) -> None:
    source = packed.parent / "source"
    assert same(open_whole_folder(packed), open_whole_folder(source))
    assert same_sets(open_folder(packed, seed=3), open_folder(source, seed=3))
    names = write_names(packed.parent / "n.csv", ("cow", "C"), ("bee", "B"), ("ant", "A"))
    assert same_sets(open_folder(packed, names=names), open_folder(source, names=names))


def test_packed_splits_open_like_the_splits(tmp_path: Path) -> None:
    source = grow(tmp_path / "source", train__a=3, train__b=2, val__b=2, val__a=1)
    sets = open_folder(source)
    parts = {"train": sets.train, "validation": sets.test}
    pack_sets(parts, tmp_path / "packed", Packing(), lambda bad: None)
    assert same_sets(open_folder(tmp_path / "packed"), sets)
    assert same(open_whole_folder(tmp_path / "packed"), open_whole_folder(source))
    shutil.rmtree(tmp_path / "packed" / "validation")
    shutil.copytree(source / "val", tmp_path / "packed" / "val")
    assert same_sets(open_folder(tmp_path / "packed"), sets)


# folders that cannot be opened


def test_a_folder_that_cannot_be_opened_gives_a_one_line_error(tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert refused(none) == f"{none} cannot be listed: no such file or directory"
    (tmp_path / "file").write_bytes(b"")
    assert refused(tmp_path / "file").endswith(
        "is not a folder of images, nor a table of their labels or arrays of both "
        "(.csv, .tsv, .txt, .npy, .npz)"
    )
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").startswith(f"{tmp_path / 'empty'} has no class folders")


def test_a_folder_without_a_tree_of_classes_gives_a_one_line_error(tmp_path: Path) -> None:
    heap = grow(tmp_path, heap=3) / "heap"
    assert refused(heap) == (
        f"{heap} has no class folders: put the images of each class into a subfolder, or write the "
        "labels into labels.csv with the columns file and label"
    )
    (heap / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    assert "validation images in a single folder: put the file with their labels" in refused(heap)
    one = grow(tmp_path / "one", only=3)
    assert refused(one) == (f"{one} has one class folder, 'only'; a net needs at least two classes")
    assert open_whole_folder(one).ids == ("only",)  # any subset of a net's classes can be evaluated
    deep = grow(tmp_path / "deep", flowers__rose=3, flowers__tulip=3)
    assert refused(deep).endswith(f"; did you mean {deep / 'flowers'}?")
    gap = grow(tmp_path / "gap", full=3, void=0)
    assert refused(gap).startswith(f"{gap / 'void'} has no images; add some")
    lonely = grow(tmp_path / "lonely", many=3, single=1)
    assert refused(lonely).startswith("class 'single' has one image, but a split needs two: ")


def test_unsorted_imagenet_validation_images_beside_train(tmp_path: Path) -> None:
    grow(tmp_path, train__n01440764=2, train__n01443537=2, val=0)
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    assert refused(tmp_path).startswith(f"{tmp_path / 'val'} has ImageNet's validation images")
