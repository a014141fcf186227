"""The record of a run's images, and the changes that it shows."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.detection.small import SCENES
from tests.training.walls import draw

from reslab.data.boxes.sets import GroundTruth, GroundTruthTable
from reslab.data.datasets import EncodedImages
from reslab.data.folder import open_folder
from reslab.detection.loader import with_objects
from reslab.runtime.files import TensorFile
from reslab.training.data_record import (
    DATA_FILE,
    DataRecord,
    examine_data,
    image_changes,
    must_have_classes,
    read_record,
    record_part,
    training_count,
)
from reslab.training.folder import RunFolder

COLUMNS = ("boxes", "labels", "difficult", "crowd")


def images(labels: dict[str, int], ids: tuple[str, ...] = ("a", "b")) -> EncodedImages:
    """Return a set of files, by name, that only its reader knows."""
    numbers = torch.tensor([*labels.values()])
    return EncodedImages("some", list(labels), numbers, ids, ids, str.encode)


def record(train: dict[str, tuple[int, int]], test: dict[str, tuple[int, int]]) -> DataRecord:
    """Return the record of files with (label, size)."""
    first, second = (
        record_part(
            images({file: label for file, (label, _) in part.items()}),
            np.array([size for _, size in part.values()], np.int64),
        )
        for part in (train, test)
    )
    return DataRecord(("a", "b"), first, second, len(train))


@pytest.mark.parametrize("seed", range(12))
def test_changes_are_counted_as_they_were_made(seed: int) -> None:
    rng = random.Random(seed)
    train = {f"a/{number}.jpg": (number % 2, 900 + number) for number in range(60)}
    test = {f"a/{number}.jpg": (number % 2, 800 + number) for number in range(40, 80)}
    before = record(train, test)
    added, gone, moved, changed = (rng.randrange(4) for _ in range(4))
    names = [f"a/{number}.jpg" for number in range(40)]  # names that test does not have
    rng.shuffle(names)
    for _ in range(gone):
        del train[names.pop()]
    for _ in range(moved):
        name = names.pop()
        test[name] = train.pop(name)
    for number in range(changed):
        label, size = train[name := names.pop()]
        train[name] = (1 - label, size) if number % 2 else (label, size + 1)
    for number in range(added):
        test[f"new/{number}.jpg"] = (0, 5)
    numbers = {
        "added": added, "gone": gone, "moved between training and validation": moved,
        "changed": changed,
    }  # fmt: skip
    expected = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    assert image_changes(before, record(train, test)) == expected
    assert image_changes(before, before) == ""


def test_another_order_is_a_change() -> None:
    train = {f"a/{number}.jpg": (0, 1) for number in range(3)}
    turned = dict(reversed(train.items()))
    assert image_changes(record(train, {}), record(turned, {})) == "in another order"


def test_equal_names_in_both_parts_are_two_images() -> None:
    both = {"a/1.jpg": (0, 5), "a/2.jpg": (0, 5)}
    assert image_changes(record(both, both), record({"a/1.jpg": (0, 5)}, both)) == "1 gone"


def test_accents_in_either_normal_form_are_the_same_name() -> None:
    composed, decomposed = "caf\u00e9/1.jpg", "cafe\u0301/1.jpg"
    assert image_changes(record({composed: (0, 1)}, {}), record({decomposed: (0, 1)}, {})) == ""


def test_names_that_are_not_utf8_have_a_record(tmp_path: Path) -> None:
    (part,) = [record({"a/\udce9.jpg": (0, 1)}, {}).train]
    assert len(part.names) == len(part.contents) == 1


def test_boxes_are_part_of_an_images_content() -> None:
    """Also after a split, which turns the table of boxes into a list."""
    train = SCENES.train
    sizes = np.full(len(train), 7, np.int64)
    before = record_part(train, sizes)
    listed = train.take("train", torch.arange(len(train)))
    assert record_part(listed, sizes).contents.tolist() == before.contents.tolist()
    truths = [*listed.truths]
    truths[2] = shifted(truths[2])
    after = record_part(replace(listed, truths=truths), sizes)
    assert np.flatnonzero(before.contents != after.contents).tolist() == [2]


def shifted(truth: GroundTruth) -> GroundTruth:
    return replace(truth, boxes=truth.boxes + 1)


@pytest.mark.parametrize(
    ("now", "difference"),
    [
        (("bee", "red"), "'red' is new, 'ant' is gone"),
        (("ant", "bee", "cow", "dog"), "'cow', 'dog' are new"),
        (("bee",), "'ant' is gone"),
        (("bee", "ant"), "the order was ant, bee, and is bee, ant"),
    ],
)
def test_other_classes_are_refused_by_name(now: tuple[str, ...], difference: str) -> None:
    with pytest.raises(ValueError, match=f"run began with other classes: {difference}; restore"):
        must_have_classes(Path("run"), ("ant", "bee"), now)


def test_another_spelling_is_no_other_class() -> None:
    must_have_classes(Path("run"), ("caf\u00e9", "Tea House"), ("cafe\u0301", "tea_house"))
    must_have_classes(Path("run"), ("same", "same"), ("same", "same"))


def examined(folder: Path, out: Path) -> list[str]:
    """Examine a folder for a new run, or for the run in `out`; return the notes."""
    notes: list[str] = []
    run = RunFolder(out) if out.exists() else None
    data = examine_data(open_folder(folder), run, folder, notes.append)
    out.mkdir(exist_ok=True)
    RunFolder(out).write_missing(DATA_FILE, data)
    return notes


def test_a_new_run_reports_copies_and_a_resumed_one_changes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        draw(tmp_path / "walls" / part, {"brick": 3, "sky": 3})
    brick = tmp_path / "walls/train/brick"
    assert examined(tmp_path / "walls", tmp_path / "run") == [
        "6 images of the validation set also in training, such as val/brick/000.jpg and "
        "train/brick/000.jpg: its error is too low; "
        f"`reslab check {tmp_path / 'walls'}` lists them"
    ]
    assert examined(tmp_path / "walls", tmp_path / "run") == []
    (brick / "extra.jpg").write_bytes((brick / "000.jpg").read_bytes())
    (brick / "001.jpg").unlink()
    assert examined(tmp_path / "walls", tmp_path / "run") == [
        "not bit-exact from here on, the images differ: 1 added, 1 gone"
    ]


def test_two_labels_of_one_image(tmp_path: Path) -> None:
    draw(tmp_path / "walls", {"brick": 8, "sky": 8})
    (tmp_path / "walls/sky/copy.jpg").write_bytes((tmp_path / "walls/brick/003.jpg").read_bytes())
    (note,) = examined(tmp_path / "walls", tmp_path / "run")
    assert note.startswith("2 images in two classes, such as ")
    assert "brick/003.jpg" in note
    assert "sky/copy.jpg" in note


def test_the_folder_of_a_table_of_labels_is_that_of_its_file(tmp_path: Path) -> None:
    draw(tmp_path / "walls", {"brick": 8, "sky": 8})
    table = tmp_path / "walls/labels.csv"
    rows = [f"{kind}/{number:03}.jpg,{kind}" for kind in ("brick", "sky") for number in range(8)]
    table.write_text("\n".join(["file,label", *rows, "brick/copy.jpg,sky"]))
    (tmp_path / "walls/brick/copy.jpg").write_bytes((tmp_path / "walls/sky/000.jpg").read_bytes())
    (tmp_path / "walls/brick/other.jpg").write_bytes((tmp_path / "walls/sky/000.jpg").read_bytes())
    with table.open("a") as file:
        file.write("\nbrick/other.jpg,brick")
    (note,) = [line for line in examined(table, tmp_path / "run") if "two classes" in line]
    assert note.startswith("3 images in two classes, such as ")
    assert {"brick/other.jpg", "sky/000.jpg"} & set(note.replace(":", "").split())
    assert f"`reslab check {table}`" in note


def test_a_detectors_images_count_if_they_have_objects_to_train_on() -> None:
    """In a table and in a list, also with images before, between and after them that have none."""
    truths = [*SCENES.train.truths]
    nothing = truths[0].take(torch.zeros(0, dtype=torch.int64))
    hard = replace(truths[1], difficult=torch.ones(len(truths[1]), dtype=torch.bool))
    listed = [nothing, truths[0], nothing, hard, truths[2], nothing]
    columns = [torch.cat([vars(truth)[name] for truth in listed]) for name in COLUMNS]
    table = GroundTruthTable(GroundTruth(*columns), [len(truth) for truth in listed])
    for several in (listed, table):
        assert training_count(replace(SCENES.train, truths=several)) == 2
    assert training_count(SCENES.train) == len(with_objects(SCENES.train))


def test_a_run_of_the_first_edition_has_no_record(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    assert examined(draw(tmp_path / "walls", {"brick": 4, "sky": 4}), tmp_path) == []


@pytest.mark.parametrize("facts", [{}, {"classes": 3}, {"classes": ["a"]}])
def test_a_damaged_record_is_refused(facts: dict, tmp_path: Path) -> None:
    (tmp_path / DATA_FILE).write_bytes(
        TensorFile({"train.names": torch.zeros(2)}, facts).to_bytes()
    )
    with pytest.raises(ValueError, match=r"data\.safetensors is damaged .*; delete it to resume"):
        read_record(tmp_path)


def test_the_record_returns_from_its_file(tmp_path: Path) -> None:
    before = record({"a/1.jpg": (0, 5)}, {"a/2.jpg": (1, 6)})
    (tmp_path / DATA_FILE).write_bytes(before.to_bytes())
    after = read_record(tmp_path)
    assert after is not None
    assert after.classes == before.classes
    assert image_changes(before, after) == ""
    data = bytearray(before.to_bytes())
    data[-1] ^= 1
    (tmp_path / DATA_FILE).write_bytes(data)
    with pytest.raises(ValueError, match="checksum does not match"):
        read_record(tmp_path)
