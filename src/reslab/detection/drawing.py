"""Draw detections on an image: boxes, class names and scores.

Each name is written on a plate, a filled rectangle in the colour of the class, which is placed
where it hides the least.
"""

from collections.abc import Sequence
from colorsys import hls_to_rgb
from math import ceil

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from reslab.data.boxes.sets import Detections
from reslab.detection.box_ops import ioa

RGB = tuple[int, int, int]
PixelBox = tuple[int, int, int, int]  # x0 y0 x1 y1 in pixels of the drawing, x1 y1 exclusive

# Okabe and Ito's colours, which most colour-blind readers can distinguish, without their black
NAMED_COLOURS: tuple[RGB, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip
FIRST_HUE = 0.02  # of the next class; with LIGHTNESS, farthest in CIELAB from the colours above
GOLDEN = 0.6180339887  # step in hue, out of a full circle: each hue falls into the widest gap
LIGHTNESS = (0.85, 0.55, 0.3)  # cycled, since neighbouring hues look alike
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
MIN_SHORTER_SIDE = 480  # pixels, roughly; smaller images are enlarged
MAX_DRAWING_SIDE = 2400  # pixels; images are not enlarged beyond this
PLATE_WEIGHT = 4  # hiding a plate counts this many times as much as hiding an object
STEP_COST = 0.02  # cost of each further position, in hidden objects: earlier ones are preferred
MAX_LETTERS = 60  # longest class name shown in full


def draw_detections(
    pixels: np.ndarray, detections: Detections, classes: Sequence[str], *, scores: bool = True
) -> Image.Image:
    """Draw a box, a name and a score for each detection, the highest scores on top.

    `scores=False` leaves out the scores, for ground truth. A small image, RGB uint8 [H, W, 3], is
    enlarged by a whole factor, so that the names are legible.
    """
    image, factor = enlarge_small(pixels)
    shorter = min(image.size)
    line = max(2, round(shorter / 200))
    font = ImageFont.load_default(max(12, round(shorter / 32)))
    assert isinstance(font, ImageFont.FreeTypeFont)  # always, if a size is given
    canvas = ImageDraw.Draw(image)
    detections = detections.take(detections.scores.argsort(descending=True, stable=True))
    boxes = [box_to_drawing(box, factor, image.size) for box in detections.boxes.tolist()]
    labels = detections.labels.tolist()
    colours = [class_colour(label) for label in labels]
    for box, colour in reversed(list(zip(boxes, colours, strict=True))):
        draw_outline(canvas, box, colour, line)
    texts = [
        plate_text(classes[label], score if scores else None, font, image.width)
        for label, score in zip(labels, detections.scores.tolist(), strict=True)
    ]
    plates = place_plates(boxes, [plate_size(text, font) for text in texts], image.size)
    for (x0, y0, x1, y1), text, colour in reversed(list(zip(plates, texts, colours, strict=True))):
        canvas.rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour)
        canvas.text((x0 + padding(font), y0), text, text_colour(colour), font)
    return image


def class_colour(label: int) -> RGB:
    """Return the colour of a class, the same in every drawing."""
    if label < len(NAMED_COLOURS):
        return NAMED_COLOURS[label]
    step = label - len(NAMED_COLOURS)
    channels = hls_to_rgb((FIRST_HUE + GOLDEN * step) % 1, LIGHTNESS[step % len(LIGHTNESS)], 0.85)
    red, green, blue = (round(255 * channel) for channel in channels)
    return red, green, blue


def text_colour(background: RGB) -> RGB:
    """Return white or black by contrast, computed from relative luminance as in WCAG."""
    linear = (np.array(background) / 255) ** 2.2
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return BLACK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else WHITE


def enlarge_small(pixels: np.ndarray) -> tuple[Image.Image, int]:
    """Return a copy of an image to draw on, enlarged if it is small, and the scale factor."""
    image = Image.fromarray(pixels)
    shorter, longer = sorted(image.size)
    factor = max(1, min(round(MIN_SHORTER_SIDE / shorter), MAX_DRAWING_SIDE // longer))
    if factor == 1:
        return image.copy(), 1
    size = (factor * image.width, factor * image.height)
    return image.resize(size, Image.Resampling.BICUBIC), factor


def box_to_drawing(box: Sequence[float], factor: int, size: tuple[int, int]) -> PixelBox:
    """Convert a box to pixels of the drawing, clipped and at least one pixel wide and high."""
    width, height = size
    x0, y0, x1, y1 = (round(factor * corner) for corner in box)
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return x0, y0, min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height)


def draw_outline(canvas: ImageDraw.ImageDraw, box: PixelBox, colour: RGB, line: int) -> None:
    """Draw the outline of a box, centred on its edge, with a contrasting rim on both sides."""
    x0, y0, x1, y1 = box
    rim = max(1, line // 3)
    width, height = canvas.im.size
    for outset, thickness, shade in (
        (line // 2 + rim, line + 2 * rim, text_colour(colour)),
        (line // 2, line, colour),
    ):
        corners = (
            max(x0 - outset, 0), max(y0 - outset, 0),
            min(x1 + outset, width) - 1, min(y1 + outset, height) - 1,
        )  # fmt: skip
        canvas.rectangle(corners, outline=shade, width=thickness)


def plate_text(name: str, score: float | None, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Format name and score as one line; the name is shortened until the line fits `width`."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    percent = "" if score is None else f"  {100 * score:.0f} %"
    for end in range(min(len(printable), MAX_LETTERS), -1, -1):
        shortened = printable if end == len(printable) else f"{printable[:end]}..."
        if plate_size(shortened + percent, font)[0] <= width:
            return shortened + percent
    return percent.strip()


def plate_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Compute the width and height of a text's plate; all plates have the same height."""
    ascent, descent = font.getmetrics()
    return ceil(font.getlength(text)) + 2 * padding(font), ascent + descent


def padding(font: ImageFont.FreeTypeFont) -> int:
    """Return the padding on either side of the text on a plate."""
    return max(2, round(font.size / 5))


def place_plates(
    boxes: Sequence[PixelBox], sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]
) -> list[PixelBox]:
    """Choose a position in the image for each box's plate, in the order of the boxes.

    Of eight positions, each plate takes the one where it hides the least of the boxes and, above
    all, of the plates placed before it.
    """
    all_boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    plates = all_boxes[:0]
    for box, size in zip(boxes, sizes, strict=True):
        positions = torch.tensor(positions_around(box, size, image_size), dtype=torch.float32)
        hidden = ioa(all_boxes, positions).sum(0) + PLATE_WEIGHT * ioa(plates, positions).sum(0)
        costs = (hidden + STEP_COST * torch.arange(len(positions))).tolist()
        best = costs.index(min(costs))
        plates = torch.cat([plates, positions[best : best + 1]])
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in plates.int().tolist()]


def positions_around(
    box: PixelBox, size: tuple[int, int], image_size: tuple[int, int]
) -> list[PixelBox]:
    """Return the candidate positions of a plate, preferred ones first.

    They lie above the box, below it, and inside it at the top and at the bottom, each flush with
    the left or the right side of the box, and are shifted into the image.
    """
    (x0, y0, x1, y1), (wide, high), (width, height) = box, size, image_size
    corners = [(x, y) for y in (y0 - high, y1, y0, y1 - high) for x in (x0, x1 - wide)]
    inside = [(max(min(x, width - wide), 0), max(min(y, height - high), 0)) for x, y in corners]
    return [(x, y, x + wide, y + high) for x, y in inside]
