"""The size at which a detector sees a picture, and boxes between that and the size it came in."""

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from reslab.data.resize import Size, cut


def sides(width: int, height: int, shorter: int, longest: int) -> Size:
    """Faster R-CNN's rule: the shorter side becomes `shorter`, unless the longer one would exceed
    `longest`; then that becomes `longest`. Rounded to whole pixels, of which one is left at least.
    """
    scale = min(Fraction(shorter, min(width, height)), Fraction(longest, max(width, height)))
    return max(round(scale * width), 1), max(round(scale * height), 1)


def scaled(pixels: np.ndarray, shorter: int, longest: int, flip: bool = False) -> np.ndarray:
    """The picture at the size of the rule, mirrored or not; uint8 [H, W, 3] -> [h, w, 3], a copy
    that torch can take over."""
    height, width = pixels.shape[:2]
    size = sides(width, height, shorter, longest)
    return np.array(cut(pixels, (0, 0, width, height), size, flip), order="C")


def to_shown(boxes: Tensor, came: Size, shown: Size, flip: bool = False) -> Tensor:
    """Boxes of a picture in pixels of how it is shown, [..., 4] -> [..., 4].

    Each side has a ratio of its own, for both were rounded.
    """
    boxes = boxes * _ratios(boxes, came, shown)
    return flipped(boxes, shown[0]) if flip else boxes


def to_came(boxes: Tensor, came: Size, shown: Size, flip: bool = False) -> Tensor:
    """The inverse: what was found in a picture as it was shown, in pixels of it as it came."""
    boxes = flipped(boxes, shown[0]) if flip else boxes
    return boxes * _ratios(boxes, shown, came)


def flipped(boxes: Tensor, width: float) -> Tensor:
    """Boxes of a mirrored picture that is so wide, [..., 4] -> [..., 4]; its own inverse."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([width - x1, y0, width - x0, y1], -1)


def _ratios(boxes: Tensor, before: Size, after: Size) -> Tensor:
    """Of x, y, x and y, [4]."""
    return boxes.new_tensor([new / old for old, new in zip(before, after, strict=True)] * 2)
