"""Render `digit-scenes`: digits of several sizes on cluttered backgrounds, for detection.

A scene is a function of (seed, part, number) alone. Training scenes have only training images of
the digits, and test scenes only test images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from reslab.data.boxes.sets import DetectionSet, DetectionSplits, GroundTruth, GroundTruthTable
from reslab.data.datasets import ImagesInMemory, Splits
from reslab.data.digits import load_digits
from reslab.runtime.files import to_json

SCENE_SIDE = 128  # of a scene, in pixels
TRAIN, TEST = 4000, 500  # scenes
HEIGHTS = (20, 64)  # of the digits' ink: minimum and maximum, in pixels
DIGITS = (2, 6)  # attempts to place a digit in a scene: minimum and maximum
MAX_OVERLAP = 0.05  # of two boxes, as a fraction of the smaller one
CONTRAST = 80  # minimum difference between ink and background, in grey levels
FINE = 96  # the side of an enlarged digit before cropping to its ink
INK = (40, 170)  # grey levels at which a digit's ink becomes visible, and opaque
SCENE_PARTS = ("train", "test")


@dataclass(frozen=True)
class Placed:
    """A digit in a scene, and its box."""

    digit: int  # index into the digits of the split
    x: int
    y: int
    width: int
    height: int

    def overlap(self, other: "Placed") -> float:
        """Return the area of the intersection as a fraction of the smaller box."""
        wide = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        high = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        smaller = min(self.width * self.height, other.width * other.height)
        return max(wide, 0) * max(high, 0) / smaller


@dataclass(frozen=True)
class Scenes:
    """The images and ground truth of one split's scenes, by number."""

    digits: ImagesInMemory
    part: str  # one of SCENE_PARTS
    seed: int

    @cached_property
    def inks(self) -> list[np.ndarray]:
        """The opacity of each digit's pixels, cropped to the ink; uint8 [h, w]."""
        return [_crop_ink(grey) for grey in self.digits.images[:, 0].numpy()]

    def layout(self, number: int) -> list[Placed]:
        """Sample the digits of a scene, at least one, and their boxes."""
        rng = self._rng(number, 0)
        placed: list[Placed] = []
        for _ in range(rng.randint(DIGITS[0], DIGITS[1] + 1)):
            digit = rng.randint(len(self.inks))
            low, high = np.log(HEIGHTS)
            height = round(float(np.exp(rng.uniform(low, high))))
            rows, columns = self.inks[digit].shape
            wide = height * columns / rows * rng.uniform(0.85, 1.15)
            width = min(max(round(wide), height // 4), SCENE_SIDE - 2)
            x, y = rng.randint(1, SCENE_SIDE - width), rng.randint(1, SCENE_SIDE - height)
            candidate = Placed(digit, x, y, width, height)
            if all(candidate.overlap(other) <= MAX_OVERLAP for other in placed):
                placed.append(candidate)
        return placed

    def truths(self, count: int) -> GroundTruthTable:
        """Return the ground truth of the first `count` scenes."""
        layouts = [self.layout(number) for number in range(count)]
        placed = [digit for layout in layouts for digit in layout]
        corners = [(ink.x, ink.y, ink.x + ink.width, ink.y + ink.height) for ink in placed]
        none = torch.zeros(len(placed), dtype=torch.bool)
        boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)
        labels = self.digits.labels[torch.tensor([ink.digit for ink in placed], dtype=torch.int64)]
        objects = GroundTruth(boxes, labels, none, none)
        return GroundTruthTable(objects, [len(layout) for layout in layouts])

    def draw(self, number: int) -> np.ndarray:
        """Render a scene, RGB uint8 [128, 128, 3]."""
        rng = self._rng(number, 1)
        scene = background(rng)
        for placed in self.layout(number):
            region = scene[placed.y : placed.y + placed.height, placed.x : placed.x + placed.width]
            ink = Image.fromarray(self.inks[placed.digit])
            cover = ink.resize((placed.width, placed.height), Image.Resampling.BILINEAR)
            strength = np.asarray(cover, np.float32)[..., None] / 255
            region += strength * (_colour_apart(region, rng) - region)
        scene += rng.normal(0, 4, (SCENE_SIDE, SCENE_SIDE, 1))
        return np.clip(np.round(scene), 0, 255).astype(np.uint8)

    def encoded(self, file: str) -> bytes:
        """Render the scene with the file name `file`, and encode it as PNG."""
        out = BytesIO()
        Image.fromarray(self.draw(int(Path(file).stem))).save(out, "PNG", compress_level=1)
        return out.getvalue()

    def _rng(self, number: int, purpose: int) -> np.random.RandomState:
        # RandomState's stream is frozen by numpy: scenes are the same on every machine
        return np.random.RandomState([self.seed, SCENE_PARTS.index(self.part), number, purpose])


def digit_scenes(*, train: int = TRAIN, test: int = TEST, seed: int = 0) -> DetectionSplits:
    """Return training and test scenes; each image is rendered when it is read."""
    digits = load_digits()
    return Splits(
        _scene_set(Scenes(digits.train, "train", seed), train),
        _scene_set(Scenes(digits.test, "test", seed), test),
    )


def _scene_set(scenes: Scenes, count: int) -> DetectionSet:
    return DetectionSet(
        scenes.part,
        [f"{number:06}.png" for number in range(count)],
        scenes.truths(count),
        scenes.digits.classes,
        scenes.digits.classes,
        scenes.encoded,
        [(SCENE_SIDE, SCENE_SIDE)] * count,
        range(count),
    )


def _crop_ink(grey: np.ndarray) -> np.ndarray:
    """Return the opacity of a digit's pixels, cropped to its ink; uint8 [h, w]."""
    fine = Image.fromarray(grey).resize((FINE, FINE), Image.Resampling.BICUBIC)
    visible, opaque = INK
    cover = np.clip((np.asarray(fine, np.float32) - visible) / (opaque - visible), 0, 1)
    rows, columns = (np.flatnonzero((cover > 0.5).any(axis)) for axis in (1, 0))
    cover = cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.round(cover * 255).astype(np.uint8)


def background(rng: np.random.RandomState) -> np.ndarray:
    """Render a background of smooth colours, shapes and lines, float32 [128, 128, 3], 0 to 255."""
    cells = rng.randint(3, 7)
    base = rng.uniform(40, 215, 3)
    patches = np.clip(base + rng.normal(0, 30, (cells, cells, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(patches).resize((SCENE_SIDE, SCENE_SIDE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 5)):
        _shape(draw, rng, _near(base, rng))
    for _ in range(rng.randint(2, 7)):
        points = [
            tuple(point) for point in rng.randint(0, SCENE_SIDE, (rng.randint(2, 4), 2)).tolist()
        ]
        draw.line(points, _near(base, rng), rng.randint(1, 4))
    return np.asarray(image).astype(np.float32)


def _near(base: np.ndarray, rng: np.random.RandomState) -> tuple[int, ...]:
    """Sample a colour near the background's, so that digits stand out from the shapes too."""
    return tuple(np.clip(base + rng.uniform(-55, 55, 3), 0, 255).astype(int).tolist())


def _shape(draw: ImageDraw.ImageDraw, rng: np.random.RandomState, colour: tuple[int, ...]) -> None:
    """Draw a random triangle, rectangle or filled disc; an outlined disc would look like a 0."""
    x, y = rng.randint(-20, SCENE_SIDE, 2).tolist()
    width, height = rng.randint(12, 60, 2).tolist()
    kind, filled = rng.randint(3), rng.randint(3) > 0
    fill, outline = (colour, None) if filled else (None, colour)
    corners = (x, y, x + width, y + height)
    if kind == 0 and filled:
        draw.ellipse(corners, fill)
    elif kind == 1:
        draw.polygon([(x, y + height), (x + width // 2, y), (x + width, y + height)], fill, outline)
    else:
        draw.rectangle(corners, fill, outline, 2)


def _colour_apart(region: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Sample a digit's colour, with a grey level at least CONTRAST from the region's mean."""
    grey = region.mean()
    lighter, darker = 255 - grey > CONTRAST, grey > CONTRAST
    up = lighter and (not darker or rng.randint(2) == 1)
    level = rng.uniform(grey + CONTRAST, 255) if up else rng.uniform(0, grey - CONTRAST)
    tint = rng.normal(0, 25, 3)
    return np.clip(level + tint - tint.mean(), 0, 255).astype(np.float32)


def save_scenes(folder: Path, sets: DetectionSplits, on_progress: Callable[[None], None]) -> None:
    """Save scenes to a folder in COCO layout; `on_progress` is called after each image."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for part, name in ((sets.train, "train"), (sets.test, "val")):
        (folder / name).mkdir(exist_ok=True)
        for file in part.files:
            (folder / name / file).write_bytes(part.read(file))
            on_progress(None)
        path = folder / "annotations" / f"instances_{name}.json"
        path.write_text(to_json(scenes_as_coco(part)), "utf-8")


def scenes_as_coco(part: DetectionSet) -> dict[str, Any]:
    """Return a set as COCO instances; category ids start at 1."""
    annotations = []
    for key, truth in zip(part.keys, part.truths, strict=True):
        columns = (truth.boxes.tolist(), truth.labels.tolist(), truth.crowd.tolist())
        for (x0, y0, x1, y1), label, crowd in zip(*columns, strict=True):
            annotations.append({
                "id": len(annotations) + 1,  # pycocotools treats 0 as "no match"
                "image_id": key,
                "category_id": label + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": int(crowd),
            })  # fmt: skip
    return {
        "images": [
            {"id": key, "file_name": file, "width": width, "height": height}
            for key, file, (width, height) in zip(part.keys, part.files, part.sizes, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(part.classes)],
    }
