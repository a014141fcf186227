"""Small generated data sets for both editions, drawn without using either."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"brick": (180, 90, 60), "slate": (60, 90, 180), "moss": (80, 140, 60)}


def draw_all(data: Path) -> None:
    """Draw every set that does not exist yet."""
    for name, draw in (
        ("images", draw_images), ("parts", draw_parts), ("faulty", draw_faulty),
        ("cifar", draw_cifar10), ("coco", draw_coco), ("voc", draw_voc),
    ):  # fmt: skip
        if not (data / name).exists():
            draw(data / f".{name}")
            (data / f".{name}").rename(data / name)


def noise(path: Path, seed: int, colour: tuple[int, ...], side: tuple[int, int] | None = None):
    """Write an image of noise around a colour; `side` is height and width, by default random."""
    rng = np.random.default_rng(seed)
    height, width = side or rng.integers(130, 170, 2)
    pixels = np.clip(colour + rng.normal(0, 40, (height, width, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def draw_images(folder: Path) -> None:
    """Draw two classes, one subfolder per class, not split into parts."""
    for number in range(14):
        name = ("brick", "slate")[number % 2]
        noise(folder / name / f"{number:03d}.jpg", number, COLOURS[name])


def draw_parts(folder: Path) -> None:
    """Draw three classes of unequal size in train/ and val/, named in classes.csv."""
    ids = {name: f"n{number:08d}" for number, name in enumerate(COLOURS)}
    for number in range(18):
        name = ("brick", "slate", "moss", "brick", "brick", "slate")[number % 6]
        part = "val" if number > 11 else "train"
        suffix = "png" if number % 4 == 0 else "jpg"
        noise(folder / part / ids[name] / f"{number:03d}.{suffix}", 50 + number, COLOURS[name])
    rows = [f"{index},{ids[name]},{name}" for index, name in enumerate(COLOURS)]
    rows.insert(0, "index,id,name")
    (folder / "classes.csv").write_text("\n".join(rows) + "\n")


def draw_faulty(folder: Path) -> None:
    """Draw images with faults: copies, truncated and empty files, text, tiny, grey, misplaced."""
    draw_images(folder)
    whole = (folder / "brick" / "000.jpg").read_bytes()
    (folder / "brick" / "copy.jpg").write_bytes(whole)
    (folder / "slate" / "copy.jpg").write_bytes(whole)
    (folder / "slate" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "slate" / "empty.jpg").write_bytes(b"")
    (folder / "slate" / "words.jpg").write_text("no image")
    (folder / "slate" / "notes.txt").write_text("no image")
    noise(folder / "brick" / "icon.png", 99, COLOURS["brick"], (12, 12))
    Image.new("L", (140, 140), 90).save(folder / "brick" / "grey.png")
    noise(folder / "beside.jpg", 98, COLOURS["brick"])


def draw_cifar10(folder: Path) -> None:
    """Write CIFAR-10's binary files with random images and labels."""
    rng = np.random.default_rng(0)
    home = folder / "cifar-10-batches-bin"
    home.mkdir(parents=True)
    rows = rng.integers(0, 256, (10_000, 3073), dtype=np.uint8)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows[:, 0] = rng.integers(0, 10, 10_000)
        rows[0, 1] = number
        (home / f"{name}.bin").write_bytes(rows.tobytes())


def boxes_of(number: int) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Return class and xyxy box of one or two objects in an image of 96 x 80 pixels."""
    rng = np.random.default_rng(number)
    x, y = (int(value) for value in rng.integers(2, 40, 2))
    objects = [("cat", (x, y, x + 30, y + 24))]
    return objects if number % 3 else [*objects, ("dog", (50, 10, 90, 60))]


def draw_boxed(path: Path, number: int) -> None:
    """Draw an image whose objects have the colour of their class."""
    rng = np.random.default_rng(number)
    pixels = rng.normal(110, 30, (80, 96, 3))
    for name, (x0, y0, x1, y1) in boxes_of(number):
        pixels[y0:y1, x0:x1] += (90, -40, -40) if name == "cat" else (-60, -20, 90)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def draw_coco(folder: Path) -> None:
    """Draw eight training and four test images in COCO's layout."""
    for part, numbers in (("train", range(8)), ("val", range(8, 12))):
        annotations = []
        for number in numbers:
            draw_boxed(folder / part / f"{number:06d}.png", number)
            for name, (x0, y0, x1, y1) in boxes_of(number):
                wide, high = x1 - x0, y1 - y0
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0,
                     "category_id": 7 if name == "cat" else 3, "bbox": [x0, y0, wide, high],
                     "area": wide * high}
                )  # fmt: skip
        images = [
            {"id": number, "file_name": f"{number:06d}.png", "width": 96, "height": 80}
            for number in numbers
        ]
        document = {
            "images": images, "annotations": annotations,
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        }  # fmt: skip
        home = folder / "annotations"
        home.mkdir(parents=True, exist_ok=True)
        (home / f"instances_{part}.json").write_text(json.dumps(document))


def draw_voc(folder: Path) -> None:
    """Draw eight training and four test images in VOC's layout."""
    for part, numbers in (("trainval", range(8)), ("test", range(8, 12))):
        lists = folder / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{part}.txt").write_text("".join(f"{number:06d}\n" for number in numbers))
        for number in numbers:
            draw_boxed(folder / "JPEGImages" / f"{number:06d}.jpg", number)
            objects = "".join(
                f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x0}</xmin>"
                f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
                for name, (x0, y0, x1, y1) in boxes_of(number)
            )
            sheet = folder / "Annotations" / f"{number:06d}.xml"
            sheet.parent.mkdir(exist_ok=True)
            sheet.write_text(
                "<annotation><size><width>96</width><height>80</height><depth>3</depth></size>"
                f"{objects}</annotation>"
            )
