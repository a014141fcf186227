"""Boxes, names and scores drawn on an image, for people to look at."""

from collections.abc import Sequence
from colorsys import hls_to_rgb
from math import ceil

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from reslab.data.boxes.sets import Detections
from reslab.detection.box_ops import ioa

Colour = tuple[int, int, int]
PixelBox = tuple[int, int, int, int]  # x0 y0 x1 y1 in pixels of the drawing, the last two exclusive

# Okabe and Ito's, which the colour-blind tell apart as well; without black
NAMED_COLOURS: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip
FIRST_HUE = 0.02  # of the others; with the lightnesses, farthest from those above (CIELAB)
GOLDEN = 0.6180339887  # of the circle of hues: each step falls into the widest gap so far
LIGHTNESS = (0.85, 0.55, 0.3)  # in turn, since neighbours of many hues look alike
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
LEAST = 480  # pixels of the shorter side, about, below which an image is enlarged
MAX_DRAWING_SIDE = 2400  # that an enlarged image may become
WORSE = 4  # is a hidden name than a hidden object
NEXT = 0.02  # of an object hidden: what it must spare for a plate to go to its next place
LETTERS = 60  # of a class's name at most


def draw_detections(
    pixels: np.ndarray, found: Detections, classes: Sequence[str], *, scores: bool = True
) -> Image.Image:
    """An image with a box, a name and a score for each detection, the best ones on top.

    Without `scores` the names stand alone, for a truth is not more or less probable.

    RGB uint8 [H, W, 3]; small images are enlarged by a whole factor, so that names are legible.
    """
    image, factor = enlarged(pixels)
    shorter = min(image.size)
    line = max(2, round(shorter / 200))
    font = ImageFont.load_default(max(12, round(shorter / 32)))
    assert isinstance(font, ImageFont.FreeTypeFont)  # asked for by its size, it is one
    canvas = ImageDraw.Draw(image)
    order = found.scores.argsort(descending=True, stable=True)
    rows = found.take(order)
    boxes = [clip_to_drawing(box, factor, image.size) for box in rows.boxes.tolist()]
    labels = rows.labels.tolist()
    for box, label in reversed(list(zip(boxes, labels, strict=True))):
        outline(canvas, box, colour_of(label), line)
    texts = [
        label_of(classes[label], score if scores else None, font, image.width)
        for label, score in zip(labels, rows.scores.tolist(), strict=True)
    ]
    plates = placed(boxes, [plate_size(text, font) for text in texts], image.size)
    for plate, text, label in reversed(list(zip(plates, texts, labels, strict=True))):
        draw_plate(canvas, plate, text, colour_of(label), font)
    return image


def colour_of(label: int) -> Colour:
    """That of a class, wherever and whenever it is drawn."""
    if label < len(NAMED_COLOURS):
        return NAMED_COLOURS[label]
    step = label - len(NAMED_COLOURS)
    shares = hls_to_rgb((FIRST_HUE + GOLDEN * step) % 1, LIGHTNESS[step % len(LIGHTNESS)], 0.85)
    red, green, blue = (round(255 * share) for share in shares)
    return red, green, blue


def letters_on(colour: Colour) -> Colour:
    """White or black, whichever stands out more: contrast by relative luminance, as in WCAG."""
    linear = (np.array(colour) / 255) ** 2.2
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return BLACK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else WHITE


def enlarged(pixels: np.ndarray) -> tuple[Image.Image, int]:
    """The image to draw on, and how many times larger it is."""
    image = Image.fromarray(pixels)
    shorter, longer = sorted(image.size)
    factor = max(1, min(round(LEAST / shorter), MAX_DRAWING_SIDE // longer))
    if factor == 1:
        return image.copy(), 1
    size = (factor * image.width, factor * image.height)
    return image.resize(size, Image.Resampling.BICUBIC), factor


def clip_to_drawing(box: Sequence[float], factor: int, size: tuple[int, int]) -> PixelBox:
    """A box in pixels of the drawing, cut at its edges, at least one pixel large."""
    width, height = size
    x0, y0, x1, y1 = (round(factor * corner) for corner in box)
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return x0, y0, min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height)


def outline(canvas: ImageDraw.ImageDraw, box: PixelBox, colour: Colour, line: int) -> None:
    """The lines run along the edge, on both sides of it; a rim sets them off from the image."""
    x0, y0, x1, y1 = box
    rim = max(1, line // 3)
    width, height = canvas.im.size
    for out, thick, shade in ((line // 2 + rim, line + 2 * rim, letters_on(colour)),
                              (line // 2, line, colour)):  # fmt: skip
        corners = (max(x0 - out, 0), max(y0 - out, 0),
                   min(x1 + out, width) - 1, min(y1 + out, height) - 1)  # fmt: skip
        canvas.rectangle(corners, outline=shade, width=thick)


def label_of(name: str, score: float | None, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Name and score in one line, the name cut where both would be wider than the image."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    percent = "" if score is None else f"  {100 * score:.0f} %"
    for end in range(min(len(shown), LETTERS), -1, -1):
        text = (shown if end == len(shown) else f"{shown[:end]}...") + percent
        if plate_size(text, font)[0] <= width:
            return text
    return percent.strip()


def plate_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height that a text needs; the height is that of any text."""
    ascent, descent = font.getmetrics()
    return ceil(font.getlength(text)) + 2 * padding(font), ascent + descent


def padding(font: ImageFont.FreeTypeFont) -> int:
    """Beside a text, on its plate."""
    return max(2, round(font.size / 5))


def placed(
    boxes: Sequence[PixelBox], plates: Sequence[tuple[int, int]], size: tuple[int, int]
) -> list[PixelBox]:
    """Where the plates of these sizes lie: at their boxes, in the image, the first ones best.

    Of eight places the one where a plate hides least of the boxes and, above all, of the plates
    before it.
    """
    around = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    taken = around[:0]
    for box, plate in zip(boxes, plates, strict=True):
        places = torch.tensor(places_at(box, plate, size), dtype=torch.float32)
        hidden = ioa(around, places).sum(0) + WORSE * ioa(taken, places).sum(0)
        costs = (hidden + NEXT * torch.arange(len(places))).tolist()
        best = costs.index(min(costs))
        taken = torch.cat([taken, places[best : best + 1]])
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in taken.int().tolist()]


def places_at(box: PixelBox, plate: tuple[int, int], size: tuple[int, int]) -> list[PixelBox]:
    """Where a plate may lie: above its box, below it, in it at the top and the bottom; flush with
    its left or its right side."""
    (x0, y0, x1, y1), (wide, high), (width, height) = box, plate, size
    corners = [(x, y) for y in (y0 - high, y1, y0, y1 - high) for x in (x0, x1 - wide)]
    kept = [(max(min(x, width - wide), 0), max(min(y, height - high), 0)) for x, y in corners]
    return [(x, y, x + wide, y + high) for x, y in kept]


def draw_plate(
    canvas: ImageDraw.ImageDraw,
    plate: PixelBox,
    text: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Letters on a plate of their class's colour."""
    x0, y0, x1, y1 = plate
    canvas.rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour)
    canvas.text((x0 + padding(font), y0), text, letters_on(colour), font)
