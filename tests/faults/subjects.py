"""Small files of every kind that reslab reads, and a function that reads each."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.editions.facts import CLOCKS
from tests.field.annotated import BOX_FAULTS, plant_coco, plant_labelme, plant_voc, plant_yolo
from tests.field.small_images import image, images

from reslab.cli import main
from reslab.data.boxes.folder import open_detection
from reslab.data.boxes.sets import DetectionSplits
from reslab.data.datasets import EncodedImages, FolderSplits
from reslab.data.decode import load_image
from reslab.data.folder import open_folder

Probe = Callable[[Path], object]  # read a folder, whose answer is compared


@dataclass(frozen=True)
class Subject:
    """A folder, the files in it that are mutated, and what reads them.

    `guarded` files have a checksum: a mutant that is read must give the same answer.
    """

    kind: str  # the row of the table
    name: str
    source: Path
    pattern: str  # of the files that are mutated
    probe: Probe
    guarded: bool = False
    weight: int = 1  # how often it is chosen
    forged: bool = False  # whether the mutants have a valid checksum

    @property
    def targets(self) -> list[Path]:
        return sorted(file for file in self.source.glob(self.pattern) if file.is_file())


class Refused(Exception):
    """A command printed why it failed, without an exception."""


def command(*words: str) -> Probe:
    """Return a probe that runs a command, in which {} is the folder; its answer is what it prints.

    A failure is raised, with RESLAB_TRACEBACK=1.
    """

    def probe(folder: Path) -> object:
        filled = [word.replace("{}", str(folder)) for word in words]
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        with redirect_stdout(out), redirect_stderr(err):
            status = main(filled)
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
        if status and not (filled[0] == "check" and status == 1):
            raise Refused(texts[1])
        return without_clocks(json.loads(texts[0]), folder)

    return probe


def without_clocks(value: Any, folder: Path) -> Any:
    """Return an answer without durations, versions and the path of the folder."""
    if isinstance(value, dict):
        return {k: without_clocks(item, folder) for k, item in value.items() if k not in CLOCKS}
    if isinstance(value, list):
        return [without_clocks(item, folder) for item in value]
    return value.replace(str(folder), "") if isinstance(value, str) else value


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    ).hexdigest()


def pixels(folder: Path) -> object:
    (file,) = folder.iterdir()
    array = load_image(file)
    return array.shape, digest(array)


def classes(folder: Path) -> object:
    return facts_of(open_folder(folder))


def facts_of(sets: FolderSplits) -> object:
    return [
        (part.files, part.labels.tolist(), part.ids, part.classes)
        for part in (sets.train, sets.test)
    ]


def all_images(folder: Path) -> object:
    """Read every image of packed sets."""
    sets = open_folder(folder)
    return facts_of(sets), [digest_images(part) for part in (sets.train, sets.test)]


def digest_images(part: EncodedImages) -> str:
    return digest(*(part.image(row) for row in range(len(part))))


def boxes(folder: Path) -> object:
    return box_facts(open_detection(folder))


def box_facts(sets: DetectionSplits) -> object:
    return [
        (part.files, part.classes, [(t.boxes.tolist(), t.labels.tolist()) for t in part.truths])
        for part in (sets.train, sets.test)
    ]


def drawing(mode: str, seed: int = 1, side: int = 40) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    drawn = Image.fromarray(coarse).resize((side + 8, side), Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(drawn.convert("L")).astype(np.uint16) * 257)
    return drawn.convert(mode)


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {  # file name -> Pillow's mode and options
    "baseline.jpg": ("RGB", {}),
    "progressive.jpg": ("RGB", {"progressive": True}),
    "restarts.jpg": ("RGB", {"restart_marker_blocks": 3}),
    "grey.jpeg": ("L", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}),
    "cmyk.jpg": ("CMYK", {}),
    "rgb.png": ("RGB", {}),
    "palette.png": ("P", {}),
    "alpha.png": ("RGBA", {}),
    "grey16.png": ("I;16", {}),
    "bits.png": ("1", {}),
    "lossy.webp": ("RGB", {}),
    "lossless.webp": ("RGBA", {"lossless": True}),
    "still.gif": ("P", {}),
    "rgb.bmp": ("RGB", {}),
    "grey.bmp": ("L", {}),
    "raw.tif": ("RGB", {}),
    "lzw.tif": ("RGB", {"compression": "tiff_lzw"}),
    "deflate.tiff": ("L", {"compression": "tiff_adobe_deflate"}),
    "jpeg.tif": ("RGB", {"compression": "jpeg"}),
    "fax.tif": ("1", {"compression": "group4"}),
    "rgb.ppm": ("RGB", {}),
    "grey.pgm": ("L", {}),
    "rgb.avif": ("RGB", {}),
    "rgb.jp2": ("RGB", {}),
    "rgb.tga": ("RGB", {"compression": "tga_rle"}),
}


TINY = (
    "model.widths=[4,4,4,4]", "model.blocks=[1,1,1,1]", "model.pool=padded", "precision=fp32",
    "augmentation.size=32", "augmentation.shorter_side=[32,40]", "pictures.resize=36",
    "iterations=6", "batch_size=4", "eval_every=3", "checkpoint_every=2", "recompute_bn=2",
    "warmup.cap=2", "log_every=1",
)  # fmt: skip


def image_subjects(home: Path) -> Iterator[Subject]:
    for name, (mode, options) in FORMATS.items():
        folder = home / "formats" / name
        folder.mkdir(parents=True)
        drawing(mode).save(folder / name, **options)
        kind = "images, PNG" if name.endswith(".png") else "images"
        yield Subject(kind, name, folder, "*", pixels, name.endswith(".png"), weight=2)
    folder = home / "checked"
    for name in ("baseline.jpg", "rgb.png", "raw.tif", "still.gif"):
        for kind in ("cat", "dog"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for number in range(3):
                drawn = drawing(FORMATS[name][0], number + 3 * (kind == "cat"))
                drawn.save(folder / kind / f"{number}-{name}")
    changes = [word for change in TINY for word in ("--set", change)]
    for verb, weight in {
        ("check", "{}", "--size", "32"): 8,
        ("pack", "{}", "{}-packed", "--shorter-side", "32"): 4,
        ("train", "own-resnet18", "--data", "{}", "--out", "{}-run", *changes): 3,
    }.items():
        read = command(*verb, "--json")
        yield Subject("images", verb[0], folder, "cat/*", read, weight=weight)


def lines(row: Callable[[int], str], header: str = "") -> str:
    return header + "".join(f"{row(number)}\n" for number in range(9))


KINDS = ("cat", "dog", "eel")
TABLES = {
    "labels.csv": lines(lambda n: f"{n}.png,{KINDS[n % 3]}", "file,label\n"),
    "labels.tsv": lines(
        lambda n: f"{n}.png\t{n % 2}\t{'train' if n < 6 else 'val'}", "image\tclass\tsplit\n"
    ),
    "labels.txt": lines(lambda n: f"{n}.png {n % 3}"),
    "train.csv": lines(lambda n: f"{n},{n % 3 == 0:d},{n % 3 == 1:d},{n % 3 == 2:d}", "id,a,b,c\n"),
}


def table_subjects(home: Path) -> Iterator[Subject]:
    for name, text in TABLES.items():
        folder = home / "tables" / name
        images(folder, 9)
        (folder / name).write_text(text)
        yield Subject("tables of labels", name, folder, name, classes, weight=2)
        checked = command("check", "{}", "--size", "8", "--json")
        yield Subject("tables of labels", f"check {name}", folder, name, checked)
    for name, text in {
        "classes.csv": "index,id,name\n0,eel,Eel\n1,cat,Cat\n2,dog,Dog\n",
        "classes.txt": "eel\ncat\ndog\n",
    }.items():
        folder = home / "lists" / name
        for kind in ("cat", "dog", "eel"):
            images(folder / kind, 2)
        (folder / name).write_text(text)
        yield Subject("tables of labels", name, folder, name, classes, weight=2)
    folder = home / "imagenet"
    for wnid in ("n01440764", "n01443537", "n01751748"):
        images(folder / "train" / wnid, 2)
    for number in (1, 2, 3):
        image(folder / "val" / f"ILSVRC2012_val_{number:08}.JPEG")
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n3\n")
    shutil.copy(Path(__file__).parents[1] / "data" / "labels" / "meta.mat", folder)
    yield Subject("tables of labels", "meta.mat", folder, "*.*", classes, weight=2)


def box_subjects(home: Path) -> Iterator[Subject]:
    folders = {name: home / "boxes" / name for name in ("coco", "voc", "yolo", "labelme", "one")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    parts = [(f"images/{part}", f"annotations/instances_{part}.json") for part in ("train", "val")]
    plant_coco(parts, BOX_FAULTS["none"], folders["coco"])
    plant_coco([("images", "instances.json")], BOX_FAULTS["none"], folders["one"])
    text = SHEET
    plant_voc(folders["voc"], text, train="abc", val="d")
    plant_yolo(folders["yolo"], "{kind}/{part}", lambda root: None)
    plant_labelme(folders["labelme"])
    checked = command("check", "{}", "--size", "32", "--json")
    for name, pattern in (
        ("coco", "annotations/*.json"), ("one", "*.json"), ("voc", "**/*.xml"),
        ("voc", "ImageSets/Main/*.txt"), ("yolo", "labels/*/*.txt"), ("yolo", "*.yaml"),
        ("labelme", "*.json"),
    ):  # fmt: skip
        kind = {"coco": "COCO", "one": "COCO", "voc": "VOC", "yolo": "YOLO"}.get(
            name, "other boxes"
        )
        if name != "labelme":
            yield Subject(kind, f"{name} {pattern}", folders[name], pattern, boxes, weight=6)
        yield Subject(kind, f"check {name} {pattern}", folders[name], pattern, checked, weight=2)


SHEET = """<?xml version="1.0"?>
<annotation>
<folder>JPEGImages</folder><filename>a.jpg</filename>
<size><width>40</width><height>30</height><depth>3</depth></size><segmented>0</segmented>
<object><name>cat</name><pose>Left</pose><truncated>0</truncated><difficult>1</difficult>
<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>22</ymax></bndbox>
<part><name>head</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part></object>
<object><name>dog</name><polygon><x1>1</x1><y1>2</y1><x2>9</x2><y2>2</y2><x3>5</x3><y3>9</y3></polygon>
</object></annotation>
"""
