"""Shards of other programs: which images and classes they have, and how they are divided."""

import gc
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.shards.foreign_tars import IMAGES, Members, sample, samples, write_tar

import reslab
from reslab.api.pack import pack
from reslab.data.datasets import EncodedImages, Splits
from reslab.data.folder import open_folder, open_whole_folder, read_folder
from reslab.data.shards.reader import is_packed


def whole(folder: Path) -> EncodedImages:
    images = read_folder(folder)
    assert isinstance(images, EncodedImages)
    return images


def answers(images: EncodedImages) -> list[tuple[bytes, str]]:
    """Return the bytes and the class of each image."""
    return [
        (images.read(file), images.classes[label])
        for file, label in zip(images.files, images.labels.tolist(), strict=True)
    ]


def refusal(folder: Path) -> str:
    """Return why training refuses a folder, and hold check to the same words."""
    with pytest.raises(ValueError, match=r".") as caught:
        open_folder(folder)
    assert "\n" not in str(caught.value)
    refused = [
        case.note
        for found in reslab.check(folder, size=16, on_event=None).findings
        if found.advice.severity == "refused"
        for case in found.cases
    ]
    assert str(caught.value) in refused
    return str(caught.value).replace(str(folder), "DIR")


EXPECTED = [(IMAGES[number], str(number % 2)) for number in range(8)]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_images_and_classes_are_those_that_webdataset_reads(tmp_path: Path) -> None:
    import webdataset

    write_tar(tmp_path / "shard-000000.tar", samples(0, 5))
    write_tar(tmp_path / "shard-000001.tar", samples(5, 3, "json"))
    (tmp_path / "README.md").write_text("text")
    shards = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    read: Any = webdataset.WebDataset(shards, shardshuffle=False)
    judged = [
        (it["jpg"], it["cls"].decode() if "cls" in it else str(json.loads(it["json"])["label"]))
        for it in read
    ]
    images = whole(tmp_path)
    assert answers(images) == judged == EXPECTED
    assert images.files[0] == "shard-000000.tar/000000.jpg"
    assert images.files[7] == "shard-000001.tar/000007.jpg"
    assert images.ids == ("0", "1")
    assert images.notes[0] == "1 file beside the shards left out: 1 .md"
    gc.collect()  # webdataset leaves closing its files to the garbage collector


KINDS: dict[str, Members] = {
    "name": sample(0, "cat") | sample(1, "dog"),
    "spaces": sample(0, " cat\n") | sample(1, b"\xef\xbb\xbfdog"),
    "json": sample(0, {"label": "cat"}, suffix="json") | sample(1, {"cls": "dog"}, suffix="json"),
    "number and name": sample(0, {"class_id": 0, "class_name": "cat"}, suffix="json")
    | sample(1, {"class_id": 1, "class_name": "dog"}, suffix="json"),
    "name of a number": sample(0, 0)
    | {"000000.json": {"label_name": "cat"}}
    | sample(1, 1)
    | {"000001.json": {"label_name": "dog"}},
    "bare": sample(0, "cat", suffix="json") | {"000000.json": '"cat"'} | sample(1, "dog"),
    "one in a list": sample(0, {"Label": ["cat"]}, suffix="json") | sample(1, "dog"),
    "label.txt": sample(0, "cat", suffix="label.txt") | sample(1, "dog", suffix="cls.txt"),
    "capitals": {"A.JPG": IMAGES[0], "A.CLS": "cat", "B.JPEG": IMAGES[1], "B.Cls": "dog"},
    "folders": sample(0, "cat", "x/1") | sample(1, "dog", "y/1"),
    "dots": sample(0, "cat", "n.1.5") | sample(1, "dog", "n.1.6"),
    "first dot": {
        "1.left.jpg": IMAGES[0],
        "1.cls": "cat",
        "2.image.jpg": IMAGES[1],
        "2.cls": "dog",
    },
    "mask": sample(0, "cat") | {"000000.mask.png": IMAGES[5]} | sample(1, "dog"),
    "another order": dict(reversed({**sample(1, "dog"), **sample(0, "cat")}.items())),
    "captions beside": sample(0, "cat") | {"000000.txt": "a cat " * 99} | sample(1, "dog"),
    "macOS": {
        "./._000000.jpg": b"Mac ",
        "./._000000.cls": b"Mac ",
        "__MACOSX/000000.jpg": b"Mac ",
        ".DS_Store": b"",
    }
    | {f"./{name}": data for name, data in (sample(0, "cat") | sample(1, "dog")).items()},
    "long names": sample(0, "cat", "x" * 150 + "/" + "é" * 60) | sample(1, "dog", "y" * 180),
}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", KINDS)
def test_how_classes_are_stated(tmp_path: Path, name: str, form: int) -> None:
    write_tar(tmp_path / "a.tar", KINDS[name], form=form)
    images = whole(tmp_path)
    assert sorted(answers(images)) == sorted([(IMAGES[0], "cat"), (IMAGES[1], "dog")])


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        ("tgz", "w:gz"),
        ("tar.gz", "w:gz"),
        ("tar", "w:gz"),
        ("tar.bz2", "w:bz2"),
        ("tar.xz", "w:xz"),
    ],
)
def test_compressed_shards(tmp_path: Path, suffix: str, mode: str) -> None:
    write_tar(tmp_path / f"a-0.{suffix}", samples(0, 5), mode)
    write_tar(tmp_path / "a-1.tar", samples(5, 3))
    assert is_packed(tmp_path)
    assert answers(whole(tmp_path)) == EXPECTED


def test_numbers_are_in_their_order_and_without_zeros(tmp_path: Path) -> None:
    labels = ("0012", "3", "100", "20", "-1")
    members = {k: v for n, text in enumerate(labels) for k, v in sample(n, text).items()}
    write_tar(tmp_path / "a.tar", members)
    images = whole(tmp_path)
    assert images.ids == images.classes == ("3", "12", "20", "100")
    assert images.labels.tolist() == [1, 0, 3, 2]
    assert images.notes == (
        "1 image without a class left out, such as a.tar/000004.jpg",
        "the classes are numbers: to name them, list the names in classnames.txt, one per line",
    )


NAMES = {
    "classnames.txt": "cat\ndog, or hound\n\n",
    "labels.txt": "cat\r\ndog, or hound\r\n",
    "_info.json": '{"features": {"image": {}, "cls": {"names": ["cat", "dog, or hound"]}}}',
    "info.json": '{"name": "pets", "classes": ["cat", "dog, or hound"]}',
    "meta.json": '{"id2label": {"1": "dog, or hound", "0": "cat"}}',
    "classes.csv": 'index,id,name\n0,n1,cat\n1,n2,"dog, or hound"\n',
}


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_names_of_numbered_classes_are_beside_the_shards(
    tmp_path: Path, name: str, above: bool
) -> None:
    shards = tmp_path / "train" if above else tmp_path
    write_tar(shards / "0.tar", samples(0, 8))
    (tmp_path / name).write_text(NAMES[name])
    images = whole(tmp_path)
    assert images.classes == ("cat", "dog, or hound")
    assert images.ids == (("n1", "n2") if name == "classes.csv" else ("0", "1"))
    assert images.labels.tolist() == [0, 1] * 4
    assert [note for note in images.notes if "split" not in note] == []


def test_a_number_without_a_name_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", samples(0, 9, classes=3))
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    line = "class 2 of DIR is not in DIR/classnames.txt, which has the names of 0 to 1"
    assert refusal(tmp_path) == line


PARTS = {
    "names": ("imagenet-train-000000.tar", "imagenet-validation-00.tar"),
    "test": ("cifar_train_0.tar", "cifar_test_0.tar"),
    "folders": ("train/0.tar", "test/0.tar"),
    "folders with names": ("train/x-train-0.tar", "val/x-val-0.tar"),
    "wrapped": ("data/train-0.tar", "data/val-0.tar"),
    "one folder down": ("pets/shards/train/0.tar", "pets/shards/valid/0.tar"),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts(tmp_path: Path, name: str) -> None:
    train, test = PARTS[name]
    write_tar(tmp_path / train, samples(0, 8))
    write_tar(tmp_path / test, samples(8, 4))
    sets = read_folder(tmp_path)
    assert isinstance(sets, Splits)
    assert answers(sets.train) == EXPECTED
    assert answers(sets.test) == [(IMAGES[n], str(n % 2)) for n in range(8, 12)]
    assert (sets.train.name, sets.test.name) == ("train", "validation")
    assert answers(open_whole_folder(tmp_path)) == answers(sets.test)
    checked = reslab.check(tmp_path, size=16, on_event=None)
    assert checked.contents == "8 train images in 2 classes, 4 validation images in 2 classes"
    assert checked.count("refused", "spoils") == 0


def test_shards_of_other_parts_are_left_out_with_a_note(tmp_path: Path) -> None:
    for number, name in enumerate(("train-0", "val-0", "test-0", "extra")):
        write_tar(tmp_path / f"{name}.tar", samples(4 * number, 4))
    sets = read_folder(tmp_path)
    assert isinstance(sets, Splits)
    assert (len(sets.train), len(sets.test)) == (4, 4)
    note = "2 shards left out, as the names are of another part or of none: extra.tar, test-0.tar"
    assert note in sets.train.notes


def test_parts_that_are_not_clear(tmp_path: Path) -> None:
    write_tar(tmp_path / "val-0.tar", samples(8, 4))
    assert refusal(tmp_path) == "DIR has shards to test on but no train/ to train on"
    write_tar(tmp_path / "pets-0.tar", samples(0, 8))
    assert refusal(tmp_path) == (
        "DIR has shards of a part (val-0.tar) beside others (pets-0.tar): move them into train/ "
        "and val/, or rename them"
    )


def test_classes_that_only_the_validation_part_has(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(0, 8))
    write_tar(tmp_path / "val-0.tar", samples(8, 4) | sample(12, 7))
    assert refusal(tmp_path).startswith(
        "class '7' is in the validation shards of DIR but not in the train shards of DIR"
    )


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    members = samples(0, 8)
    members |= {"8.jpg": IMAGES[8], "9.cls": b"1", "a.wav": b"", "b.wav": b""}
    members |= {"000001.mask.png": IMAGES[9], "000002.json": b'{"label": 5}'}
    write_tar(tmp_path / "x-01.tar", members)
    write_tar(tmp_path / "x-04.tar", samples(10, 2))
    assert whole(tmp_path).notes[:6] == (
        "2 files in shards left out: 2 .wav",
        "1 image without a class left out, such as x-01.tar/8.jpg",
        "1 image beside another one of a sample left out, such as x-01.tar/000001.mask.png",
        "1 image with another class in .json than in .cls, which is taken, such as "
        "x-01.tar/000002.jpg",
        "1 label in shards without an image left out",
        f"{tmp_path} has no x-02.tar, x-03.tar: copy the missing shards too, if they belong to the "
        "set",
    )


def test_texts_are_classes_only_if_they_are_listed(tmp_path: Path) -> None:
    members = {k: v for n in range(8) for k, v in sample(n, f"a {n % 2}", suffix="txt").items()}
    write_tar(tmp_path / "0.tar", members)
    assert refusal(tmp_path) == (
        "DIR has no classes: its texts (such as 'a 0') may be captions; if they are classes, list "
        "them in classes.csv"
    )
    (tmp_path / "classes.csv").write_text("index,id,name\n0,a 1,one\n1,a 0,zero\n")
    images = whole(tmp_path)
    assert images.classes == ("one", "zero")
    assert images.labels.tolist() == [1, 0] * 4


REFUSED: dict[str, tuple[Members, str]] = {
    "two images": (
        sample(0, 1) | {"000000.png": IMAGES[1]},
        "DIR/a.tar: sample '000000' has several images, '000000.jpg' and '000000.png': keep one",
    ),
    "left and right": (
        {"1.left.jpg": IMAGES[0], "1.right.jpg": IMAGES[1], "1.cls": "3"},
        "DIR/a.tar: sample '1' has several images, '1.left.jpg' and '1.right.jpg': keep one",
    ),
    "two classes": (
        sample(0, 1) | {"000000.label": "2"},
        "DIR/a.tar has two classes of '000000.label'; pack it again",
    ),
    "metadata": (
        sample(0, {"url": "http://a/b", "width": 3}, suffix="json"),
        "DIR has no classes: a.tar/000000.jpg has neither .cls nor a class in .json, such as "
        '{"label": 3}',
    ),
    "several classes": (
        sample(0, {"label": [1, 2]}, suffix="json"),
        "DIR/a.tar: '000000.jpg': its class is '[1, 2]': one number or name is needed",
    ),
    "half a class": (
        sample(0, {"label": 1.5}, suffix="json"),
        "DIR/a.tar: '000000.jpg': its class is '1.5': one number or name is needed",
    ),
    "deep": (
        sample(0, "[" * 100_000, suffix="json"),
        "DIR/a.tar: '000000.json' cannot be read (nested too deeply)",
    ),
    "no JSON": (sample(0, "{", suffix="json"), "DIR/a.tar: '000000.json' cannot be read ("),
    "long number": (sample(0, "1" * 4301, suffix="json"), "DIR/a.tar: '000000.json' cannot be"),
    "long": (sample(0, "1" * 5000), "DIR/a.tar: '000000.cls' has more than 4,096 bytes"),
    "bytes": (sample(0, b"\xff"), "DIR/a.tar: '000000.cls' cannot be read ("),
}


@pytest.mark.parametrize("name", REFUSED)
def test_samples_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    members, line = REFUSED[name]
    write_tar(tmp_path / "a.tar", {**members, **samples(4, 8)} if name != "metadata" else members)
    assert refusal(tmp_path).startswith(line)


def test_two_members_with_one_name(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(0, 4))
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("000001.jpg"))
    assert refusal(tmp_path) == "DIR/a.tar has two members '000001.jpg'; pack it again"


# what is not a set of shards


def test_archives_beside_images_are_not_read(tmp_path: Path) -> None:
    for name in ("cat/0.jpg", "cat/1.jpg", "dog/2.jpg", "dog/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(IMAGES[int(name[4])])
    write_tar(tmp_path / "backup.tar", samples(0, 8))
    images = whole(tmp_path)
    assert images.ids == ("cat", "dog")
    assert images.notes == ("1 file beside the class folders left out: 1 .tar",)


def test_archives_without_classes_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "cat.tar", {f"{n}.jpg": IMAGES[n] for n in range(4)})
    line = refusal(tmp_path)
    assert line.startswith("DIR has no class folders but archives (cat.tar)")
    assert line.endswith("extract the images of each class into a subfolder")


def test_a_single_preview_does_not_hide_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", samples(0, 8))
    (tmp_path / "preview.png").write_bytes(IMAGES[0])
    images = whole(tmp_path)
    assert answers(images) == EXPECTED
    assert images.notes[0] == "1 file beside the shards left out: 1 .png"


# the same set as any other


def test_packing_foreign_shards_keeps_the_set(tmp_path: Path) -> None:
    source = tmp_path / "pets"
    write_tar(source / "train-0.tgz", samples(0, 8), "w:gz")
    write_tar(source / "val-0.tar", samples(8, 4))
    (source / "classnames.txt").write_text("cat\ndog\n")
    pack(source, tmp_path / "packed")
    before, after = read_folder(source), read_folder(tmp_path / "packed")
    assert isinstance(before, Splits)
    assert isinstance(after, Splits)
    for was, now in ((before.train, after.train), (before.test, after.test)):
        assert (list(now.files), now.ids, now.classes) == (list(was.files), was.ids, was.classes)
        assert torch.equal(now.labels, was.labels)
        assert answers(now) == answers(was)


def test_the_set_does_not_depend_on_the_place_or_the_compression(tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "x.tar", samples(0, 20))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for seed in (0, 1):
        sets = [open_folder(tmp_path / name, seed=seed) for name in "ab"]
        assert sets[0].train.files == sets[1].train.files
        assert sets[0].test.files == sets[1].test.files
