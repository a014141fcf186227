"""Packing into shards: files written, images reduced or left out, and failures."""

import errno
import gc
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.shards.mixed_sets import (
    IDS,
    encoded,
    names_in,
    quiet,
    set_of,
    write,
)

from reslab.data.decode import BadImage, load_image
from reslab.data.folder import open_folder, open_folder_parts, open_whole_folder
from reslab.data.resize import resize_whole
from reslab.data.shards.draft import DRAFT
from reslab.data.shards.index import INDEX
from reslab.data.shards.reader import is_packed, open_part, read_index
from reslab.data.shards.writer import Packing, pack_sets


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_webdataset_reads_the_same(tmp_path: Path) -> None:
    """Read every sample from several shards, with webdataset's own decoding of labels."""
    import webdataset

    files = {f"{IDS[n % 3]}/{n}.jpg": encoded(900, 700, n) + bytes(200_000) for n in range(9)}
    files["n01/x.png"] = encoded(9, 9, 50, "PNG")
    pack_sets({".": set_of(files)}, tmp_path / "packed", Packing(shard_size=1), quiet)
    shards = sorted(map(str, (tmp_path / "packed").glob("*.tar")))
    assert len(shards) > 1
    assert all(os.path.getsize(shard) <= 1_000_000 for shard in shards)
    stream: Any = webdataset.WebDataset(shards, shardshuffle=False).decode()
    samples = list(stream)
    assert len({sample["__key__"] for sample in samples}) == len(files)
    read = {(sample.get("jpg") or sample["png"], sample["cls"]) for sample in samples}
    assert read == {(data, IDS.index(name.split("/")[0])) for name, data in files.items()}
    gc.collect()  # webdataset leaves closing its files to the garbage collector


def test_an_image_larger_than_a_shard_gets_its_own_shard(tmp_path: Path) -> None:
    sizes = {"n01/a.jpg": 0, "n01/b.jpg": 1_200_000, "n01/c.jpg": 0, "n01/d.jpg": 1_200_000}
    files = {name: encoded(8, 8, 0) + bytes(size) for name, size in sizes.items()}
    pack_sets({".": set_of(files)}, tmp_path / "o", Packing(shard_size=1), quiet)
    opened, shards = open_part(tmp_path / "o"), read_index(tmp_path / "o").columns["shards"]
    assert all(opened.read(name) == data for name, data in files.items())
    assert shards[1] != shards[3]
    assert not {shards[1], shards[3]} & {shards[0], shards[2]}


def test_members_have_the_suffix_of_their_format(packed: Path) -> None:
    with tarfile.open(packed / "shard-000000.tar") as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names[1::2] == [f"{number:06d}.cls" for number in range(60)]
    suffixes = [name.split(".")[1] for name in names[::2]]
    assert {s: suffixes.count(s) for s in set(suffixes)} == {"jpg": 36, "png": 12, "webp": 12}
    assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}


def test_classes_are_mixed_in_a_shard(packed: Path) -> None:
    """If sorted by class, the first third would not have all three classes."""
    index = read_index(packed)
    first = np.argsort(index.columns["offsets"])[:20]
    assert set(index.columns["labels"][first]) == {0, 1, 2}


def test_equal_images_give_equal_bytes(files: dict, packed: Path, tmp_path: Path) -> None:
    pack_sets({".": set_of(files)}, tmp_path / "again", Packing(), quiet)
    for name in names_in(packed):
        assert (packed / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert names_in(packed) == {INDEX, "shard-000000.tar"} == names_in(tmp_path / "again")


def test_a_packed_set_is_split_like_the_original(files: dict, tmp_path: Path) -> None:
    """Even if images are reduced, and their bytes differ."""
    folder = write(tmp_path / "pictures", files)
    for packing in (Packing(), Packing(shorter_side=32)):
        out = tmp_path / f"packed-{packing.shorter_side}"
        pack_sets(open_folder_parts(folder), out, packing, quiet)
        for seed in (0, 1):
            before, after = (open_folder(place, seed=seed) for place in (folder, out))
            assert list(after.train.files) == list(before.train.files)
            assert list(after.test.files) == list(before.test.files)
            assert torch.equal(after.test.labels, before.test.labels)
            assert after.train.ids == before.train.ids == tuple(sorted(IDS))


def test_splits_are_packed_as_splits(files: dict, tmp_path: Path) -> None:
    names = list(files)
    train = {f"train/{name}": files[name] for name in names[::2]}
    test = {f"val/{name}": files[name] for name in names[1::8]}
    folder = write(tmp_path / "pictures", train | test)
    pack_sets(open_folder_parts(folder), tmp_path / "new" / "packed", Packing(), quiet)
    assert is_packed(tmp_path / "new" / "packed" / "train")
    assert is_packed(tmp_path / "new" / "packed" / "validation")
    before, after = open_folder(folder), open_folder(tmp_path / "new" / "packed")
    for was, now in ((before.train, after.train), (before.test, after.test)):
        assert (now.name, list(now.files)) == (was.name, list(was.files))
        assert torch.equal(now.labels, was.labels)
        assert all(now.read(file) == was.read(file) for file in now.files)


@pytest.mark.parametrize("alone", ["train", "val"])
def test_a_single_split_stays_that_split(files: dict, tmp_path: Path, alone: str) -> None:
    folder = write(tmp_path / "pictures" / alone, files).parent
    pack_sets(open_folder_parts(folder), tmp_path / "packed", Packing(), quiet)
    place = {"train": "train", "val": "validation"}[alone]
    assert names_in(tmp_path / "packed") == {place, f"{place}/{INDEX}", f"{place}/shard-000000.tar"}
    assert list(open_whole_folder(tmp_path / "packed").files) == list(
        open_whole_folder(folder).files
    )
    if alone == "val":
        with pytest.raises(ValueError, match="but no train/ to train on"):
            open_folder(tmp_path / "packed")


def test_a_packed_set_can_be_packed_again(packed: Path, files: dict, tmp_path: Path) -> None:
    pack_sets({".": open_part(packed)}, tmp_path / "again", Packing(), quiet)
    assert (packed / INDEX).read_bytes() == (tmp_path / "again" / INDEX).read_bytes()


# reducing


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((120, 60), (96, 48)),
        ((60, 120), (48, 96)),
        ((101, 60), (80, 48)),  # 80.8 rounded down, as in shorter_side
        ((49, 49), (48, 48)),
        ((500, 48), (500, 48)),
        ((47, 500), (47, 500)),
    ],
)
def test_larger_images_are_reduced_and_none_are_enlarged(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    data = encoded(*size, seed=1, kind="PNG")
    images, packing = set_of({"n01/a.png": data}), Packing(shorter_side=48)
    (facts,) = pack_sets({".": images}, tmp_path / "o", packing, quiet)
    opened = open_part(tmp_path / "o")
    height, width = opened.image(0).shape[:2]
    assert (width, height) == expected
    assert facts.reduced == (size != expected)
    if size == expected:
        assert opened.read("n01/a.png") == data


def test_a_reduced_image_equals_the_resized_image_up_to_jpeg_loss(tmp_path: Path) -> None:
    data = encoded(400, 300, 3)
    pack_sets({".": set_of({"n01/a.jpg": data})}, tmp_path / "o", Packing(shorter_side=100), quiet)
    opened = open_part(tmp_path / "o")
    expected = resize_whole(load_image(data, ""), 100).astype(int)
    assert np.abs(opened.image(0) - expected).mean() < 1
    with Image.open(io.BytesIO(opened.read("n01/a.jpg"))) as made:
        assert made.format == "JPEG"
        layers = made.layer  # type: ignore[attr-defined]
    assert [layer[1:3] for layer in layers] == [(1, 1)] * 3  # 4:4:4


def test_an_image_too_long_for_jpeg_is_not_reduced(tmp_path: Path) -> None:
    data = encoded(140_000, 3, 0, "PNG")
    pack_sets({".": set_of({"n01/a.png": data})}, tmp_path / "o", Packing(shorter_side=2), quiet)
    assert open_part(tmp_path / "o").read("n01/a.png") == data


def test_the_jpeg_quality_is_as_requested(tmp_path: Path) -> None:
    files = {"n01/a.jpg": encoded(400, 300, 3)}
    for quality in (50, 95):
        packing = Packing(shorter_side=200, quality=quality)
        pack_sets({".": set_of(files)}, tmp_path / str(quality), packing, quiet)
    low, high = (open_part(tmp_path / q).read("n01/a.jpg") for q in ("50", "95"))
    assert len(low) < len(high)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shorter_side": 0}, "at least 1"),
        ({"quality": 101}, "from 1 to 100"),
        ({"shard_size": 0}, "at least 1"),
    ],
)
def test_options_out_of_range(options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Packing(**options)


# bad images and failures


def test_bad_images_are_named_and_left_out(files: dict, tmp_path: Path) -> None:
    names = list(files)
    broken = files | {names[0]: files[names[0]][:100], names[30]: b""}
    reported: list[BadImage] = []
    done = []
    (facts,) = pack_sets(
        {".": set_of(broken)},
        tmp_path / "o",
        Packing(),
        lambda bad: reported.append(bad) if bad else done.append(1),
    )
    assert (facts.pictures, facts.left_out, len(done)) == (58, 2, 58)
    assert {str(bad).split(":")[0] for bad in reported} == {names[0], names[30]}
    opened = open_part(tmp_path / "o")
    good = [name for name in names if name not in (names[0], names[30])]
    assert list(opened.files) == good
    assert all(opened.read(name) == files[name] for name in good)
    assert opened.labels.tolist() == [IDS.index(name[:3]) for name in good]


def test_a_class_without_a_good_image_is_an_error(files: dict, tmp_path: Path) -> None:
    broken = {name: b"" if name.startswith("n01") else data for name, data in files.items()}
    with pytest.raises(
        ValueError, match=r"no image of class 'dog' can be decoded \(for example n01/"
    ):
        pack_sets({".": set_of(broken)}, tmp_path / "new" / "o", Packing(), lambda bad: None)
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("made_before", [False, True])
def test_an_interrupt_leaves_no_files(files: dict, tmp_path: Path, made_before: bool) -> None:
    if made_before:
        (tmp_path / "o").mkdir()
    seen = []

    def stop(bad: BadImage | None) -> None:
        seen.append(names_in(tmp_path / "o"))
        if len(seen) == 70:
            raise KeyboardInterrupt

    part = set_of(files, "train")
    parts = {"train": part, "validation": part.take("validation", torch.arange(60))}
    with pytest.raises(KeyboardInterrupt):
        pack_sets(parts, tmp_path / "o", Packing(), stop)
    # meanwhile all files are in the hidden folder
    assert {name.split("/")[0] for names in seen for name in names} == {DRAFT}
    assert seen[-1] >= {f"{DRAFT}/{name}/shard-000000.tar" for name in ("train", "validation")}
    assert names_in(tmp_path) == ({"o"} if made_before else set())


def test_a_failed_rename_leaves_no_files(
    files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shard has been renamed already when renaming the index fails."""
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if target.name == INDEX:
            assert (target.parent / "shard-000000.tar").exists(), "the index comes last"
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr("reslab.data.shards.draft.os.rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        pack_sets({".": set_of(files)}, tmp_path / "o", Packing(), quiet)
    assert names_in(tmp_path) == set()


def test_a_folder_that_is_not_empty_is_refused(packed: Path, files: dict) -> None:
    before = {name: (packed / name).read_bytes() for name in names_in(packed)}
    with pytest.raises(ValueError, match="is not empty"):
        pack_sets({".": set_of(files)}, packed, Packing(), quiet)
    assert {name: (packed / name).read_bytes() for name in names_in(packed)} == before
    with pytest.raises(ValueError, match="is a file"):
        pack_sets({".": set_of(files)}, packed / INDEX, Packing(), quiet)


def test_a_full_disk_is_reported_and_leaves_no_files(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let the test mount a small file system")
    try:
        files = {f"n01/{n}.jpg": encoded(90, 70, n) + bytes(100_000) for n in range(30)}
        with pytest.raises(OSError, match="No space left on device") as caught:
            pack_sets({".": set_of(files)}, disk / "o", Packing(), quiet)
        assert caught.value.filename == str(disk / "o" / "shard-000000.tar")
        assert names_in(disk) == set()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_real_photographs(shared: Path, tmp_path: Path) -> None:
    """Reduced to 256, no image is lost and aspect ratios are kept."""
    paths = sorted((shared / "imagenet" / "samples").rglob("*.JPEG"))[:12]
    files = {f"n01/{path.name}": path.read_bytes() for path in paths}
    pack_sets({".": set_of(files)}, tmp_path / "o", Packing(shorter_side=256), quiet)
    opened = open_part(tmp_path / "o")
    for row, (name, data) in enumerate(files.items()):
        height, width = load_image(data, name).shape[:2]
        small = opened.image(row)
        assert min(small.shape[:2]) == min(256, width, height)
        assert small.shape[1] / small.shape[0] == pytest.approx(width / height, rel=0.01)
    shutil.rmtree(tmp_path / "o")
