"""Create folders of small images with one fault each, and list the expected findings."""

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from reslab.data.decode import load_image
from reslab.data.doctor.advice import FEW, IMBALANCE
from reslab.data.doctor.findings import diagnose
from reslab.data.doctor.inspect import (
    inspect_all,
)
from reslab.data.doctor.scan import scan_folder

SIZE = 16  # side of the net's input and of the images here

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
    """Create an unsplit folder with two classes and no faults."""
    write(root / "cat", rows(FEW, 0))
    write(root / "dog", rows(FEW, 100))
    return root


def plant_parts(root: Path) -> Path:
    """Create a folder with train/ and val/ and no faults."""
    plant(root / "train")
    write(root / "val" / "cat", rows(2, 200))
    write(root / "val" / "dog", rows(2, 300))
    return root


def check(folder: Path, size: int = SIZE) -> Found:
    scan = scan_folder(folder)
    findings = diagnose(scan, inspect_all(scan, lambda line: None), size)
    return {finding.kind: [case.files for case in finding.cases] for finding in findings}


def sixteen_bits(seed: int) -> bytes:
    """Return an RGB PNG with 16 bits per channel, which Pillow can read but not write."""
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
    """Return a PNG of a few bytes whose header states 10^10 pixels."""
    data = bytearray(encoded(image(1), "PNG"))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def with_exif(data: bytes, orientation: int) -> bytes:
    """Return a JPEG with an EXIF block that has only the orientation."""
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 274, 3, 1, orientation, 0, 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


JPEG = encoded(image(900), "JPEG")

PNG = encoded(image(901), "PNG")

# kind -> a file name and bytes: one fault each, put into a class of a clean folder
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
FILES: dict[str, tuple[str, bytes]] = {
    "empty": ("empty.jpg", b""),
    "truncated": ("truncated.jpg", JPEG[: len(JPEG) * 2 // 3]),
    "corrupt": ("corrupt.png", PNG[:60] + bytes(40) + PNG[100:]),
    "not an image": ("page.jpg", b"<!DOCTYPE html><title>404</title>"),
    "HEIC": ("iphone.jpg", HEIC),
    "HEIC left out": ("iphone.image", HEIC),
    "too large": ("bomb.png", bomb()),
    "too small": ("tiny.png", encoded(image(902, 1, 5), "PNG")),
    "small": ("small.png", encoded(image(903, 40, SIZE - 1), "PNG")),
    "too thin": ("strip.png", encoded(image(912, 51 * SIZE, SIZE), "PNG")),
    "unknown suffix": ("photo.image", JPEG),
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


def copy(root: Path, source: str, target: str) -> None:
    shutil.copy(root / source, root / target)


def as_png(root: Path, source: str, target: str) -> None:
    """Copy an image's pixels into a PNG file."""
    data = (root / source).read_bytes()
    Image.fromarray(load_image(data, source)).save(root / target)


def spoil_class_list(root: Path) -> None:
    (root / "classes.csv").write_text("index,id,name\n0,cat,Cat\n")


def link(root: Path, place: str, target: str) -> None:
    (root / place).symlink_to(target)


def grow(root: Path, place: str, count: int, start: int = 500) -> None:
    write(root / place, rows(count, start))


def by_day(root: Path) -> None:
    """Move the classes into june/, and add may/ with one other image of each."""
    for name, start in (("cat", 500), ("dog", 600)):
        (root / "june").mkdir(exist_ok=True)
        (root / name).rename(root / "june" / name)
        grow(root, f"may/{name}", 1, start)


Spoil = Callable[[Path], object]

# for a split folder: name -> (a change to the folder, the expected findings)
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
        {"other file": [("val/cat/round",)], "outside": [("train/round",)]},
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

# the same for an unsplit folder
WHOLE: dict[str, tuple[Spoil, Found]] = {
    "copied": (
        lambda root: copy(root, "cat/03.jpg", "cat/copy.jpg"),
        {"repeated, no parts": [("cat/03.jpg", "cat/copy.jpg")]},
    ),
    "one image": (lambda root: grow(root, "eel", 1), {"one image": [("eel",)]}),
    "one class": (lambda root: shutil.rmtree(root / "cat"), {"one class": [(".",)]}),
    "ambiguous parts": (
        by_day,
        {
            "ambiguous parts": [(".",)],
            "few images": [("may",)],
        },
    ),
    "a table with two labels for one image": (
        lambda root: (root / "labels.csv").write_text("file,label\ncat/00.jpg,a\ncat/00.jpg,b\n"),
        {"labels": [(".",)]},
    ),
    "no class": (
        lambda root: [shutil.rmtree(root / name) for name in ("cat", "dog")],
        {"no classes": [(".",)]},
    ),
}
