"""Slow references: plain loops over pixels, boxes and bins that the fast functions must equal."""

from math import ceil, floor

import torch
from torch import Tensor

Box = list[float]


def random_boxes(count: int, side: int, rng: torch.Generator) -> Tensor:
    """Boxes with integer corners, at least one pixel wide and high, [count, 4]."""
    corners = torch.randint(0, side, (count, 2, 2), generator=rng)
    return torch.cat([corners.amin(1), corners.amax(1) + 1], 1).float()


def iou_of_pixels(one: Box, other: Box) -> float:
    """IoU by counting pixels; the corners must be integers."""
    pixels = [
        {(x, y) for x in range(int(x0), int(x1)) for y in range(int(y0), int(y1))}
        for x0, y0, x1, y1 in (one, other)
    ]
    return len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])


def iou(one: Box, other: Box) -> float:
    across = max(min(one[2], other[2]) - max(one[0], other[0]), 0)
    down = max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    both = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (one, other))
    return across * down / (both - across * down)


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    order = sorted(range(len(boxes)), key=lambda index: (-scores[index].item(), index))
    selected: list[int] = []
    for index in order:
        if all(iou(boxes[index].tolist(), boxes[k].tolist()) <= threshold for k in selected):
            selected.append(index)
    return selected


def roi_pool(features: Tensor, boxes: Tensor, images: Tensor, size: int, stride: int) -> Tensor:
    """Fast R-CNN's layer in Python, with exclusive corners and exact fractions for bins."""
    height, width = features.shape[2:]
    pooled = torch.zeros(len(boxes), features.shape[1], size, size, dtype=features.dtype)
    for region, (box, image) in enumerate(zip(boxes.tolist(), images.tolist(), strict=True)):
        x0, y0 = (floor(corner / stride + 0.5) for corner in box[:2])
        x1, y1 = (floor((corner - 1) / stride + 0.5) for corner in box[2:])
        across, down = max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1)
        for row in range(size):
            for column in range(size):
                top, bottom = y0 + row * down // size, y0 + ceil((row + 1) * down / size)
                left, right = x0 + column * across // size, x0 + ceil((column + 1) * across / size)
                cells = [
                    features[image, :, y, x]
                    for y in range(max(top, 0), min(bottom, height))
                    for x in range(max(left, 0), min(right, width))
                ]
                if cells:
                    pooled[region, :, row, column] = torch.stack(cells).amax(0)
    return pooled


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    """Interpolate at a point in cells, whose centres are integers, [C, H, W] -> [C]."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(image), dtype=image.dtype)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[:, top, left] * (1 - x + left) + image[:, top, right] * (x - left)
    lower = image[:, bottom, left] * (1 - x + left) + image[:, bottom, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def roi_align(
    features: Tensor, boxes: Tensor, images: Tensor, size: int, stride: int, points: int
) -> Tensor:
    pooled = torch.zeros(len(boxes), features.shape[1], size, size, dtype=features.dtype)
    for region, (box, image) in enumerate(zip(boxes.tolist(), images.tolist(), strict=True)):
        x0, y0, x1, y1 = (corner / stride - 0.5 for corner in box)
        for row in range(size * points):
            for column in range(size * points):
                y = y0 + (row + 0.5) * (y1 - y0) / (size * points)
                x = x0 + (column + 0.5) * (x1 - x0) / (size * points)
                value = bilinear(features[image], y, x) / points**2
                pooled[region, :, row // points, column // points] += value
    return pooled
