"""Antialiased resizing, with crops as if taken from the resized whole image."""

from math import ceil, floor
from typing import Literal

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom, in the image's pixels
Size = tuple[int, int]  # width, height, as Pillow orders them

Interpolation = Literal["bilinear", "bicubic"]

# Pillow's filter, and the distance in pixels of the smaller image at which it becomes zero
FILTERS = {"bilinear": (Image.Resampling.BILINEAR, 1), "bicubic": (Image.Resampling.BICUBIC, 2)}
# Pillow resizes horizontally first, like `resize_whole_to_centre`. From version 13 on, images more
# than twice as high as wide are resized vertically first, which rounds differently.
TALL = 1.5
MAX_ASPECT_RATIO = 50  # enlarging a thinner image could exhaust the memory


def too_thin(width: int, height: int) -> str:
    """Return why an image is too thin to be resized for testing; "" if it is not."""
    longer, shorter = max(width, height), min(width, height)
    if longer <= MAX_ASPECT_RATIO * shorter:
        return ""
    shape = "long as high" if width > height else "high as wide"
    return (
        f"{width} x {height} pixels is {ceil(longer / shorter)} times as {shape}; the limit is "
        f"{MAX_ASPECT_RATIO}"
    )


def shorter_side(width: int, height: int, side: int) -> Size:
    """Return the size at which the shorter side is `side`; the longer side is rounded down."""
    if width <= height:
        return side, side * height // width
    return side * width // height, side


def resize_whole(
    image: np.ndarray, side: int, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Resize an image so that its shorter side is `side`, uint8 [H, W, 3] -> [h, w, 3]."""
    height, width = image.shape[:2]
    size = shorter_side(width, height, side)
    return resized_crop(image, (0, 0, width, height), size, interpolation=interpolation)


def centre_offset(length: int, size: int) -> int:
    """Return where `size` central pixels of `length` begin; halves are rounded to even."""
    return round((length - size) / 2)


def crop_box(width: int, height: int, scaled: Size, left: int, top: int, size: int) -> Box:
    """Return the box, in the original image, of a square crop from the image resized to `scaled`.

    The crop has the corner (`left`, `top`) and the side `size` in the resized image.
    """
    x, y = width / scaled[0], height / scaled[1]
    return left * x, top * y, (left + size) * x, (top + size) * y


def resize_whole_to_centre(
    image: np.ndarray, side: int, size: int, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Return the central `size` x `size` pixels of `resize_whole`, computing few of the others.

    uint8 [H, W, 3] -> [size, size, 3]. Unlike in `centre_crop`, no pixel differs: each axis is
    resized in full, but only in the rows and columns that the centre depends on.
    """
    assert size <= side
    height, width = image.shape[:2]
    across, down = shorter_side(width, height, side)
    left, top = centre_offset(across, size), centre_offset(down, size)
    if height > TALL * width:
        return resize_whole(image, side, interpolation)[top : top + size, left : left + size]
    scale, (kernel, reach) = height / down, FILTERS[interpolation]
    first, last = _filter_range(top * scale, (top + size) * scale, size, height, reach)
    rows = Image.fromarray(image[first:last]).resize((across, last - first), kernel)
    columns = Image.new("RGB", (size, height))  # the other rows may hold anything
    columns.paste(rows.crop((left, 0, left + size, last - first)), (0, first))
    return np.asarray(columns.resize((size, down), kernel).crop((0, top, size, top + size)))


def centre_crop(image: np.ndarray, side: int, size: int) -> np.ndarray:
    """Resize the shorter side to `side`, then crop the centre; [H, W, 3] -> [size, size, 3]."""
    assert size <= side
    height, width = image.shape[:2]
    scaled = shorter_side(width, height, side)
    left, top = (centre_offset(length, size) for length in scaled)
    return resized_crop(image, crop_box(width, height, scaled, left, top, size), (size, size))


def resized_crop(
    image: np.ndarray,
    box: Box,
    size: Size,
    flip: bool = False,
    interpolation: Interpolation = "bilinear",
) -> np.ndarray:
    """Crop an image to `box`, resize it to `size` and mirror it if `flip`.

    uint8 [H, W, 3] -> [h, w, 3]. The result equals, up to rounding, a crop of the resized whole
    image: Pillow accepts boxes in fractions of pixels, and its filter also uses the pixels around
    the box. Only pixels within the filter's support are passed to Pillow.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    if size == (x1 - x0, y1 - y0) and x0 == int(x0) and y0 == int(y0):  # nothing to interpolate
        part = image[int(y0) : int(y1), int(x0) : int(x1)]
        return part[:, ::-1] if flip else part
    kernel, reach = FILTERS[interpolation]
    left, right = _filter_range(x0, x1, size[0], width, reach)
    top, bottom = _filter_range(y0, y1, size[1], height, reach)
    source = Image.fromarray(image[top:bottom, left:right])
    # a rounding error can move a box past the edge, which Pillow refuses
    inside = (
        max(x0 - left, 0),
        max(y0 - top, 0),
        min(x1 - left, source.width),
        min(y1 - top, source.height),
    )
    resized = source.resize(size, kernel, box=inside)
    if flip:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(resized)


def lowest_row(box: Box, size: Size, height: int) -> int:
    """Return how many rows, from the top, `resized_crop` needs of an image of this height."""
    return _filter_range(box[1], box[3], size[1], height)[1]


def _filter_range(
    start: float, stop: float, pixels: int, length: int, reach: int = 1
) -> tuple[int, int]:
    """Return the range of source pixels needed to resize [start, stop) to `pixels` pixels."""
    support = reach * max((stop - start) / pixels, 1.0)  # of the filter, to each side
    return max(floor(start - support), 0), min(ceil(stop + support), length)
