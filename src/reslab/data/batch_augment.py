"""The augmentation of Sec. 4.2 for mini-batches of images in memory: crop and mirror."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def draw_offsets(count: int, pad: int, rng: Generator) -> Tensor:
    """Sample the offsets for `pad_and_crop`: (row, column) of each image, int64 [count, 2]."""
    return torch.randint(0, 2 * pad + 1, (2, count), generator=rng).T


def pad_and_crop(images: Tensor, pad: int, offsets: Tensor, flips: Tensor | None = None) -> Tensor:
    """Pad with zeros, then crop to the original size at one of (2 pad + 1)^2 offsets (Sec. 4.2).

    Crops for which `flips` is true are mirrored. [B, C, H, W], [B, 2] and [B] -> [B, C, H, W],
    channels last. Subtract the mean first, so that the padding equals it.
    """
    batch, channels, height, width = images.shape
    device, offsets = images.device, offsets.to(images.device)
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)  # [B, H + 2p, W + 2p, C]
    rows = offsets[:, :1] + torch.arange(height, device=device)  # [B, H]
    columns = torch.arange(width, device=device).expand(batch, width)
    if flips is not None:
        columns = torch.where(flips.to(device)[:, None], width - 1 - columns, columns)
    columns = columns + offsets[:, 1:]  # [B, W]
    rows = rows + torch.arange(batch, device=device)[:, None] * (height + 2 * pad)
    pixels = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]  # of all padded images
    # one selection of whole pixels is four times as fast as indexing by image, row and column
    cropped = padded.reshape(-1, channels).index_select(0, pixels.flatten())
    return cropped.view(batch, height, width, channels).permute(0, 3, 1, 2)


def draw_flips(count: int, rng: Generator) -> Tensor:
    """Sample which images to mirror, each with probability 1/2; bool [count]."""
    return torch.rand(count, generator=rng) < 0.5


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror the images for which `flips` is true, [B, C, H, W] and [B] -> [B, C, H, W]."""
    return torch.where(flips.to(images.device)[:, None, None, None], images.flip(-1), images)
