"""The folder doctor: a clean folder, each fault alone, and all faults at once."""

import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from tests.data.doctor.spoilt_folders import (
    ARRANGED,
    FILES,
    SIZE,
    WHOLE,
    check,
    copy,
    encoded,
    grow,
    image,
    link,
    plant,
    plant_parts,
)

from reslab.data.class_folders import images_by_class
from reslab.data.doctor.advice import IMAGE_ADVICE, IMBALANCE
from reslab.data.doctor.findings import diagnose
from reslab.data.doctor.inspect import (
    FORMATS,
    ODDITIES,
    PROBLEMS,
    ImageInfo,
    inspect_all,
)
from reslab.data.doctor.scan import FolderScan, scan_folder
from reslab.data.folder import FolderPart, open_folder_parts
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.shards.writer import Packing, pack_sets


@pytest.fixture(autouse=True)
def without_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


def test_a_clean_folder_has_no_findings(tmp_path: Path) -> None:
    assert check(plant(tmp_path / "whole")) == {}
    assert check(plant_parts(tmp_path / "parts")) == {}


@pytest.mark.parametrize("kind", FILES)
def test_each_bad_file_is_found_alone(kind: str, tmp_path: Path) -> None:
    name, data = FILES[kind]
    (plant_parts(tmp_path) / "val" / "cat" / name).write_bytes(data)
    assert check(tmp_path) == {kind: [(f"val/cat/{name}",)]}


def test_notes_give_details(tmp_path: Path) -> None:
    plant(tmp_path)
    for kind in ("wrong suffix", "unknown suffix", "small", "too large"):
        name, data = FILES[kind]
        (tmp_path / "cat" / name).write_bytes(data)
    scan = scan_folder(tmp_path)
    findings = diagnose(scan, inspect_all(scan, lambda line: None), SIZE)
    notes = {finding.kind: [case.note for case in finding.cases] for finding in findings}
    assert notes == {
        "too large": [
            "100000 x 100000 pixels according to its header; the limit is 89,478,485 pixels"
        ],
        "unknown suffix": ["a JPEG"],
        "wrong suffix": ["a PNG"],
        "small": [f"40 x {SIZE - 1}"],
    }


@pytest.mark.parametrize("fault", ARRANGED)
def test_each_fault_of_a_split_folder_is_found_alone(fault: str, tmp_path: Path) -> None:
    spoil, found = ARRANGED[fault]
    spoil(plant_parts(tmp_path))
    assert check(tmp_path) == found


@pytest.mark.parametrize("fault", WHOLE)
def test_each_fault_of_an_unsplit_folder_is_found_alone(fault: str, tmp_path: Path) -> None:
    spoil, found = WHOLE[fault]
    spoil(plant(tmp_path))
    assert check(tmp_path) == found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_and_folders_are_named(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "cat" / "00.jpg").chmod(0)
    (tmp_path / "dog" / "closed").mkdir(mode=0)
    found = check(tmp_path)
    (tmp_path / "dog" / "closed").chmod(0o700)
    assert found == {"unreadable": [("cat/00.jpg",)], "unreadable folder": [("dog/closed",)]}


def test_all_faults_at_once_are_found_and_no_others(tmp_path: Path) -> None:
    root = plant_parts(tmp_path)
    for name, data in FILES.values():
        (root / "val/cat" / name).write_bytes(data)
    link(root, "val/cat/gone.jpg", "nowhere.jpg")
    link(root, "train/cat/up", "..")
    link(root, "train/loop", "../..")
    copy(root, "train/cat/03.jpg", "train/cat/copy.jpg")
    copy(root, "train/cat/04.jpg", "train/dog/copy.jpg")
    copy(root, "train/cat/05.jpg", "val/cat/copy.jpg")
    copy(root, "val/dog/00.jpg", "loose.jpg")
    (root / "train/ant").mkdir()
    grow(root, "train/eel", 1)
    grow(root, "val/fox", 1, 600)
    grow(root, "train/cat/more", IMBALANCE, 700)
    assert check(root) == {kind: [(f"val/cat/{name}",)] for kind, (name, _) in FILES.items()} | {
        "linked class": [("train/loop",)],
        "empty class": [("train/ant",)],
        "class not in training": [("val/fox",)],
        "unreadable": [("val/cat/gone.jpg",)],
        "two labels": [("train/cat/04.jpg", "train/dog/copy.jpg")],
        "leak": [("train/cat/05.jpg", "val/cat/copy.jpg")],
        "repeated": [("train/cat/03.jpg", "train/cat/copy.jpg")],
        "outside": [("loose.jpg",)],
        "linked folder": [("train/cat/up",)],
        "few images": [("train/eel",)],
        "imbalance": [("train/eel",)],
        "class not in validation": [("train/eel",)],
    }


def test_every_kind_is_tested_and_has_advice() -> None:
    met = {kind for _, found in (*ARRANGED.values(), *WHOLE.values()) for kind in found}
    of_training = {"not trainable", "note"}
    of_boxes = {"other boxes"}  # tested in tests/field/test_box_formats.py
    assert met | set(FILES) | of_training | of_boxes | {"unreadable folder"} == set(IMAGE_ADVICE)
    assert set(PROBLEMS) | set(ODDITIES) <= set(IMAGE_ADVICE)
    assert set(FORMATS) == set(IMAGE_SUFFIXES)


def test_shards_are_checked_like_their_folder(tmp_path: Path) -> None:
    root = plant_parts(tmp_path / "plain")
    copy(root, "train/cat/03.jpg", "val/cat/copy.jpg")
    pack_sets(open_folder_parts(root), tmp_path / "packed", Packing(), lambda bad: None)
    assert check(tmp_path / "packed") == {"leak": [("train/cat/03.jpg", "validation/cat/copy.jpg")]}
    shard = next((tmp_path / "packed/train").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[600] ^= 255  # in the first image
    shard.write_bytes(data)
    found = check(tmp_path / "packed")
    assert [len(cases) for cases in found.values()] == [1, 1]
    assert list(found) == ["unreadable", "leak"]


def test_shards_of_reduced_images_have_no_wrong_suffix(tmp_path: Path) -> None:
    root = plant(tmp_path / "plain")
    (root / "cat/large.png").write_bytes(encoded(image(1, 40, 30), "PNG"))
    pack_sets(
        open_folder_parts(root), tmp_path / "packed", Packing(shorter_side=SIZE), lambda bad: None
    )
    assert check(tmp_path / "packed") == {}


def test_many_images_take_little_memory(tmp_path: Path) -> None:
    """Limit the bytes per image, including names of 30 letters; every 200th image is a copy."""
    many, classes = 5_000, 100
    files = {
        f"n{id_:08}": [f"n{id_:08}/n{id_:08}_{row:05}.JPEG" for row in range(many // classes)]
        for id_ in range(classes)
    }
    tracemalloc.start()
    images = images_by_class(tmp_path, files)
    scan = FolderScan(tmp_path, [FolderPart("whole", tmp_path, "", images)])
    infos = [
        ImageInfo(width=500, height=375, digest=2**120 + row // 2 * 2 if row % 200 == 1
                  else 2**120 + row, oddities=("grey",))
        for row in range(many)
    ]  # fmt: skip
    kept = tracemalloc.get_traced_memory()[0]
    findings = diagnose(scan, [infos], SIZE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    counts = {finding.kind: len(finding.cases) for finding in findings}
    assert (counts["grey"], counts["repeated, no parts"]) == (many, many // 200)
    assert kept < 300 * many
    assert peak < 600 * many
