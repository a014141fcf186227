"""Sets of images from the user's own arrays."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reslab.data.datasets import ImagesInMemory


def image_set(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | Tensor,
    labels: Sequence[int] | np.ndarray | Tensor,
    classes: Sequence[str],
    name: str = "own",
) -> ImagesInMemory:
    """Return a set of the user's own square images; its memory is not shared with the arrays.

    `images` are uint8, grey [N, H, H] or [N, H, H, 1], or RGB [N, H, H, 3]; grey is repeated into
    three equal channels. `labels` are N integers, indices into `classes`. Raise ValueError for
    other shapes and types, and for labels outside the classes.
    """
    pixels = torch.as_tensor(images)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    shape = list(torch.as_tensor(images).shape)
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        channels_first = " (move the channels to the end)" if shape[1:2] in ([1], [3]) else ""
        raise ValueError(
            f"images have the shape {shape}: it must be [N, H, H], [N, H, H, 1] or [N, H, H, 3]"
            f"{channels_first}"
        )
    count, height, width, _ = pixels.shape
    if not count or not height or height != width:
        raise ValueError(f"images have the shape {shape}: give at least one, all square")
    if pixels.dtype != torch.uint8:
        dtype = str(pixels.dtype).removeprefix("torch.")
        raise ValueError(f"images are {dtype}: they must be uint8, from 0 to 255")
    pixels = pixels.permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    numbers = label_tensor(labels, count, classes)
    return ImagesInMemory(name, pixels.contiguous().clone(), numbers, tuple(classes))


def label_tensor(
    labels: Sequence[int] | np.ndarray | Tensor, count: int, classes: Sequence[str]
) -> Tensor:
    """Return `count` labels as int64; raise ValueError unless all are indices into `classes`."""
    if isinstance(classes, str) or len(set(classes)) != len(classes):
        raise ValueError(f"classes must be a list of different names, not {classes!r}")
    numbers = torch.as_tensor(labels)
    if numbers.shape != (count,):
        raise ValueError(
            f"labels have the shape {list(numbers.shape)}, not [{count}], one per image"
        )
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        dtype = str(numbers.dtype).removeprefix("torch.")
        raise ValueError(f"labels are {dtype}: they must be integers, class indices from 0")
    numbers = numbers.long()
    outside = ((numbers < 0) | (numbers >= len(classes))).nonzero()[:, 0]
    if len(outside):
        first = int(outside[0])
        raise ValueError(
            f"image {first} has the label {int(numbers[first])}: with {len(classes)} classes, "
            f"labels go from 0 to {len(classes) - 1}"
        )
    return numbers.clone()
