"""The folder doctor: a clean folder, one fault after the other, and all of them at once."""

import os
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslab.data.class_folders import images_by_class
from reslab.data.decode import IMAGE_SUFFIXES, load_image
from reslab.data.doctor.advice import FEW, IMAGE_ADVICE, IMBALANCE
from reslab.data.doctor.findings import diagnose
from reslab.data.doctor.inspect import (
    FORMATS,
    ODDITIES,
    PROBLEMS,
    ImageInfo,
    inspect,
    inspect_all,
    is_cut_short,
)
from reslab.data.doctor.scan import FolderScan, scan_folder
from reslab.data.folder import FolderPart, open_folder, open_folder_parts
from reslab.data.shards.writer import Packing, pack_sets

SIZE = 16  # of the net's images, and of those here
Found = dict[str, list[tuple[str, ...]]]


def image(seed: int, width: int = SIZE, height: int = SIZE, bands: int = 3) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)
    return Image.fromarray(pixels[:, :, 0] if bands == 1 else pixels)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def rows(count: int, start: int) -> list[tuple[str, bytes]]:
    return [(f"{n:02}.jpg", encoded(image(start + n), "JPEG")) for n in range(count)]


def write(home: Path, files: list[tuple[str, bytes]]) -> None:
    home.mkdir(parents=True)
    for name, data in files:
        (home / name).write_bytes(data)


def plant(root: Path) -> Path:
    """Two classes without parts, and nothing wrong."""
    write(root / "cat", rows(FEW, 0))
    write(root / "dog", rows(FEW, 100))
    return root


def plant_parts(root: Path) -> Path:
    """The same with parts."""
    plant(root / "train")
    write(root / "val" / "cat", rows(2, 200))
    write(root / "val" / "dog", rows(2, 300))
    return root


def check(folder: Path, size: int = SIZE) -> Found:
    scan = scan_folder(folder)
    findings = diagnose(scan, inspect_all(scan, lambda line: None), size)
    return {it.kind: [case.files for case in it.cases] for it in findings}


def sixteen_bits(seed: int) -> bytes:
    """An RGB PNG of sixteen bits a channel, which Pillow reads and does not write."""
    lines = np.random.default_rng(seed).integers(0, 256, (SIZE, 6 * SIZE), np.uint8)
    raw = b"".join(b"\0" + line.tobytes() for line in lines)

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b""))
    )


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 10^10 pixels."""
    data = bytearray(encoded(image(1), "PNG"))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def with_exif(data: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF block that holds nothing but the orientation."""
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 274, 3, 1, orientation, 0, 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


JPEG = encoded(image(900), "JPEG")
PNG = encoded(image(901), "PNG")

# kind -> a file and its bytes: one fault each, in a class of a folder that is otherwise clean
FILES: dict[str, tuple[str, bytes]] = {
    "empty": ("empty.jpg", b""),
    "truncated": ("truncated.jpg", JPEG[: len(JPEG) * 2 // 3]),
    "corrupt": ("corrupt.png", PNG[:60] + bytes(40) + PNG[100:]),
    "not an image": ("page.jpg", b"<!DOCTYPE html><title>404</title>"),
    "too large": ("bomb.png", bomb()),
    "too small": ("tiny.png", encoded(image(902, 1, 5), "PNG")),
    "small": ("small.png", encoded(image(903, 40, SIZE - 1), "PNG")),
    "unknown suffix": ("photo.jfif", JPEG),
    "other file": ("notes.txt", b"seen in the garden"),
    "wrong suffix": ("wrong.jpg", PNG),
    "16-bit": ("deep.png", sixteen_bits(904)),
    "CMYK": ("cmyk.jpg", encoded(image(905).convert("CMYK"), "JPEG")),
    "alpha": ("alpha.png", encoded(image(906, bands=4), "PNG")),
    "palette": ("palette.png", encoded(image(907).quantize(16), "PNG")),
    "grey": ("grey.jpg", encoded(image(908, bands=1), "JPEG")),
    "rotated": ("rotated.jpg", with_exif(encoded(image(909), "JPEG"), 6)),
    "animated": (
        "animated.webp",
        encoded(image(910), "WEBP", save_all=True, append_images=[image(911)]),
    ),
}  # fmt: skip


def test_a_clean_folder_has_no_findings(tmp_path: Path) -> None:
    assert check(plant(tmp_path / "whole")) == {}
    assert check(plant_parts(tmp_path / "parts")) == {}


@pytest.mark.parametrize("kind", FILES)
def test_a_bad_file_is_found_and_nothing_else(kind: str, tmp_path: Path) -> None:
    name, data = FILES[kind]
    (plant_parts(tmp_path) / "val" / "cat" / name).write_bytes(data)
    assert check(tmp_path) == {kind: [(f"val/cat/{name}",)]}


def test_a_note_says_more(tmp_path: Path) -> None:
    plant(tmp_path)
    for kind in ("wrong suffix", "unknown suffix", "small", "too large"):
        name, data = FILES[kind]
        (tmp_path / "cat" / name).write_bytes(data)
    scan = scan_folder(tmp_path)
    findings = diagnose(scan, inspect_all(scan, lambda line: None), SIZE)
    notes = {it.kind: [case.note for case in it.cases] for it in findings}
    assert notes == {
        "too large": ["100000 x 100000 pixels by its header; at most 89,478,485 are read"],
        "unknown suffix": ["a JPEG"],
        "wrong suffix": ["a PNG"],
        "small": [f"40 x {SIZE - 1}"],
    }


def copy(root: Path, source: str, target: str) -> None:
    shutil.copy(root / source, root / target)


def as_png(root: Path, source: str, target: str) -> None:
    """The same pixels in another format."""
    data = (root / source).read_bytes()
    Image.fromarray(load_image(data, source)).save(root / target)


def spoil_class_list(root: Path) -> None:
    (root / "classes.csv").write_text("index,id,name\n0,cat,Cat\n")


def link(root: Path, place: str, target: str) -> None:
    (root / place).symlink_to(target)


def grow(root: Path, place: str, count: int, start: int = 500) -> None:
    write(root / place, rows(count, start))


Spoil = Callable[[Path], object]
# of a folder with parts: name -> (what is done to it, what is found)
ARRANGED: dict[str, tuple[Spoil, Found]] = {
    "copied": (
        lambda root: copy(root, "train/cat/03.jpg", "train/cat/copy.jpg"),
        {"repeated": [("train/cat/03.jpg", "train/cat/copy.jpg")]},
    ),
    "copied as PNG": (
        lambda root: as_png(root, "train/cat/03.jpg", "train/cat/copy.png"),
        {"repeated": [("train/cat/03.jpg", "train/cat/copy.png")]},
    ),
    "copied with EXIF": (
        lambda root: (root / "train/dog/copy.jpg").write_bytes(
            with_exif((root / "train/dog/01.jpg").read_bytes(), 1)
        ),
        {"repeated": [("train/dog/01.jpg", "train/dog/copy.jpg")]},
    ),
    "in two classes": (
        lambda root: copy(root, "train/cat/03.jpg", "train/dog/copy.jpg"),
        {"two labels": [("train/cat/03.jpg", "train/dog/copy.jpg")]},
    ),
    "in two parts": (
        lambda root: copy(root, "train/cat/03.jpg", "val/cat/copy.jpg"),
        {"leak": [("train/cat/03.jpg", "val/cat/copy.jpg")]},
    ),
    "in two classes and parts": (
        lambda root: copy(root, "train/cat/03.jpg", "val/dog/copy.jpg"),
        {"two labels": [("train/cat/03.jpg", "val/dog/copy.jpg")]},
    ),
    "a broken link": (
        lambda root: link(root, "val/cat/gone.jpg", "nowhere.jpg"),
        {"unreadable": [("val/cat/gone.jpg",)]},
    ),
    "a circle of links": (
        lambda root: link(root, "val/cat/self.jpg", "self.jpg"),
        {"unreadable": [("val/cat/self.jpg",)]},
    ),
    "circles of links without a suffix": (
        lambda root: [link(root, place, "round") for place in ("val/cat/round", "train/round")],
        {"other file": [("val/cat/round",)]},
    ),
    "a pipe": (
        lambda root: os.mkfifo(root / "val/cat/pipe.jpg"),
        {"unreadable": [("val/cat/pipe.jpg",)]},
    ),
    "a linked folder": (
        lambda root: link(root, "train/cat/up", ".."),
        {"linked folder": [("train/cat/up",)]},
    ),
    "a class that leads up": (
        lambda root: link(root, "train/loop", "../.."),
        {"linked class": [("train/loop",)]},
    ),
    "a class twice": (
        lambda root: link(root, "train/hound", "dog"),
        {"linked class": [("train/hound",)]},
    ),
    "an empty class": (
        lambda root: (root / "train/eel").mkdir(),
        {"empty class": [("train/eel",)]},
    ),
    "a class only in validation": (
        lambda root: grow(root, "val/eel", 1),
        {"class not in training": [("val/eel",)]},
    ),
    "a class only in training": (
        lambda root: grow(root, "train/eel", FEW),
        {"class not in validation": [("train/eel",)]},
    ),
    "few images": (
        lambda root: (root / "train/cat/00.jpg").unlink(),
        {"few images": [("train/cat",)]},
    ),
    "imbalance": (
        lambda root: grow(root, "train/cat/more", (IMBALANCE - 1) * FEW + 1),
        {"imbalance": [("train/dog",)]},
    ),
    "outside": (
        lambda root: [copy(root, "val/cat/00.jpg", place) for place in ("a.jpg", "train/b.jpg")],
        {"outside": [("train/b.jpg",), ("a.jpg",)]},
    ),
    "a folder beside the parts": (
        lambda root: grow(root, "extra/cat", 1),
        {"outside": [("extra/",)]},
    ),
    "a class that is not listed": (
        spoil_class_list,
        {"class list": [("train/dog",), ("val/dog",)]},
    ),
    "a bad list of classes": (
        lambda root: (root / "val/classes.csv").write_text("cat,dog"),
        {"class list": [("val/classes.csv",)]},
    ),
    "no training part": (
        lambda root: shutil.rmtree(root / "train"),
        {"no training part": [(".",)]},
    ),
    "damaged shards": (
        lambda root: (root / "train/index.safetensors").write_bytes(b"damaged"),
        {"shards": [("train/",)]},
    ),
}  # fmt: skip

# the same for a folder without parts
WHOLE: dict[str, tuple[Spoil, Found]] = {
    "copied": (
        lambda root: copy(root, "cat/03.jpg", "cat/copy.jpg"),
        {"repeated, no parts": [("cat/03.jpg", "cat/copy.jpg")]},
    ),
    "one image": (lambda root: grow(root, "eel", 1), {"one image": [("eel",)]}),
    "one class": (lambda root: shutil.rmtree(root / "cat"), {"one class": [(".",)]}),
    "no class": (
        lambda root: [shutil.rmtree(root / name) for name in ("cat", "dog")],
        {"no classes": [(".",)]},
    ),
}


@pytest.mark.parametrize("fault", ARRANGED)
def test_a_fault_of_a_folder_with_parts_is_found_alone(fault: str, tmp_path: Path) -> None:
    spoil, found = ARRANGED[fault]
    spoil(plant_parts(tmp_path))
    assert check(tmp_path) == found


@pytest.mark.parametrize("fault", WHOLE)
def test_a_fault_of_a_folder_without_parts_is_found_alone(fault: str, tmp_path: Path) -> None:
    spoil, found = WHOLE[fault]
    spoil(plant(tmp_path))
    assert check(tmp_path) == found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "cat" / "00.jpg").chmod(0)
    (tmp_path / "dog" / "closed").mkdir(mode=0)
    found = check(tmp_path)
    (tmp_path / "dog" / "closed").chmod(0o700)
    assert found == {"unreadable": [("cat/00.jpg",)], "unreadable folder": [("dog/closed",)]}


def test_all_faults_at_once_are_found_each_and_no_other(tmp_path: Path) -> None:
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


def test_every_kind_has_advice_and_a_case_here() -> None:
    met = {kind for _, found in (*ARRANGED.values(), *WHOLE.values()) for kind in found}
    assert met | set(FILES) | {"unreadable folder"} == set(IMAGE_ADVICE)
    assert set(PROBLEMS) | set(ODDITIES) <= set(IMAGE_ADVICE)
    assert set(FORMATS) == set(IMAGE_SUFFIXES)


def test_the_doctor_sees_the_images_of_a_run(tmp_path: Path) -> None:
    """On a folder that both accept, by name and in number."""
    root = plant_parts(tmp_path)
    for place in (
        "train/cat/young/a.JPEG",
        "train/cat/young/.b.jpg",
        "train/cat/@eaDir/c.jpg",
        "train/__MACOSX/d.jpg",
        "train/.cache/e.jpg",
        "val/dog/f.g.tif",
        "val/dog/h",
    ):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(JPEG)
    link(root, "train/eel", "../val/cat")
    link(root, "val/eel", "dog/../../train/dog")
    sets = open_folder(root)
    train, validation = scan_folder(root).parts
    for part, images in ((train, sets.train), (validation, sets.test)):
        assert part.images.files == images.files
        ids = [[of.ids[label] for label in of.labels] for of in (part.images, images)]
        assert ids[0] == ids[1]
    assert len(sets.train) + len(sets.test) == 38


def test_shards_are_checked_as_their_folder_is(tmp_path: Path) -> None:
    root = plant_parts(tmp_path / "plain")
    copy(root, "train/cat/03.jpg", "val/cat/copy.jpg")
    pack_sets(open_folder_parts(root), tmp_path / "packed", Packing(), lambda bad: None)
    assert check(tmp_path / "packed") == {"leak": [("train/cat/03.jpg", "validation/cat/copy.jpg")]}
    shard = next((tmp_path / "packed/train").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[600] ^= 255  # in the image that comes first
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


FORMATS_CUT = (
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}),
    ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
)  # fmt: skip


@pytest.mark.parametrize(("form", "options"), FORMATS_CUT)
def test_a_file_cut_anywhere_is_truncated(form: str, options: dict) -> None:
    data = encoded(image(3, 40, 50), form, **options)
    suffix = f".{form.lower()}"
    assert inspect(lambda file: data, f"a{suffix}").problem == ""
    assert not is_cut_short(data, form.lower())
    problems = {
        inspect(lambda file, at=at: data[:at], f"a{suffix}").problem
        for at in range(20, len(data), 97)
    }
    assert problems == {"truncated"}


def test_a_tiff_is_turned_and_of_sixteen_bits(tmp_path: Path) -> None:
    plant(tmp_path)
    deep = Image.fromarray(np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 200)
    deep.save(tmp_path / "cat/deep.tif")
    image(5).save(tmp_path / "cat/turned.tif", tiffinfo={274: 8})
    assert check(tmp_path) == {"16-bit": [("cat/deep.tif",)], "rotated": [("cat/turned.tif",)]}


def test_names_that_are_not_text_and_an_empty_folder(tmp_path: Path) -> None:
    plant(tmp_path / "a")
    odd = os.fsencode(tmp_path / "a/cat") + b"/\xff\n.jpg"
    Path(os.fsdecode(odd)).write_bytes(b"")
    assert check(tmp_path / "a") == {"empty": [("cat/\udcff\n.jpg",)]}
    (tmp_path / "b").mkdir()
    assert check(tmp_path / "b") == {"no classes": [(".",)]}
    with pytest.raises(ValueError, match="is not there"):
        scan_folder(tmp_path / "c")


def test_many_images_take_little_memory(tmp_path: Path) -> None:
    """Bytes an image, names of thirty letters included, while every two hundredth is a copy."""
    many, classes = 20_000, 1000
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
    assert (counts["grey"], counts["repeated, no parts"]) == (many, 100)
    assert kept < 300 * many
    assert peak < 600 * many
