"""Bilinear resizing with antialiasing, of a part of an image as exactly as of the whole."""

from math import ceil, floor

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom, in the image's pixels
Size = tuple[int, int]  # width, height, as Pillow orders them


def shorter_side(width: int, height: int, side: int) -> Size:
    """Return the size whose shorter side is `side`, the longer one rounded down."""
    if width <= height:
        return side, side * height // width
    return side * width // height, side


def resize_whole(image: np.ndarray, side: int) -> np.ndarray:
    """Resize an image so that its shorter side is `side`, uint8 [H, W, 3] -> [h, w, 3]."""
    height, width = image.shape[:2]
    return cut(image, (0, 0, width, height), shorter_side(width, height, side))


def crop_box(width: int, height: int, scaled: Size, left: int, top: int, size: int) -> Box:
    """Locate, in the image itself, a square crop of the image resized to `scaled`."""
    x, y = width / scaled[0], height / scaled[1]
    return left * x, top * y, (left + size) * x, (top + size) * y


def centre_crop(image: np.ndarray, side: int, size: int) -> np.ndarray:
    """Crop the middle of the image resized to the shorter side; [H, W, 3] -> [size, size, 3]."""
    assert size <= side
    height, width = image.shape[:2]
    scaled = shorter_side(width, height, side)
    left, top = (round((length - size) / 2) for length in scaled)  # halves to even
    return cut(image, crop_box(width, height, scaled, left, top, size), (size, size))


def cut(image: np.ndarray, box: Box, size: Size, flip: bool = False) -> np.ndarray:
    """Resize the part of an image in `box` to `size`, then mirror it; uint8 [H, W, 3] -> [h, w, 3].

    Equal, up to rounding, to a crop of the resized whole image: Pillow takes a box in fractions of
    pixels, and its filter still sees what lies around the box. Only the pixels within the filter's
    reach are handed over.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    if size == (x1 - x0, y1 - y0) and x0 == int(x0) and y0 == int(y0):  # nothing to interpolate
        part = image[int(y0) : int(y1), int(x0) : int(x1)]
        return part[:, ::-1] if flip else part
    left, right = _filter_range(x0, x1, size[0], width)
    top, bottom = _filter_range(y0, y1, size[1], height)
    source = Image.fromarray(image[top:bottom, left:right])
    # a box may reach over the edge by a rounding error, which Pillow refuses
    inside = (
        max(x0 - left, 0),
        max(y0 - top, 0),
        min(x1 - left, source.width),
        min(y1 - top, source.height),
    )
    resized = source.resize(size, Image.Resampling.BILINEAR, box=inside)
    if flip:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(resized)


def _filter_range(start: float, stop: float, pixels: int, length: int) -> tuple[int, int]:
    """Return the range of source pixels that resizing [start, stop) to `pixels` looks at."""
    reach = max((stop - start) / pixels, 1.0)  # of the triangle filter, to each side
    return max(floor(start - reach), 0), min(ceil(stop + reach), length)
