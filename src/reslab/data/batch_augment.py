"""The augmentation of Sec. 4.2 for mini-batches of images in memory: crop and mirror."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def draw_offsets(count: int, pad: int, rng: Generator) -> Tensor:
    """Sample the offsets for `pad_and_crop`: (row, column) of each image, int64 [count, 2]."""
    return torch.randint(0, 2 * pad + 1, (2, count), generator=rng).T


def pad_and_crop(images: Tensor, pad: int, offsets: Tensor) -> Tensor:
    """Pad with zeros, then crop to the original size at one of (2 pad + 1)^2 offsets (Sec. 4.2).

    [B, C, H, W] and [B, 2] -> [B, C, H, W]. Subtract the mean first, so that the padding equals it.
    """
    batch, _, height, width = images.shape
    offsets = offsets.to(images.device)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)  # [B, H]
    columns = offsets[:, 1:] + torch.arange(width, device=images.device)  # [B, W]
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)  # [B, H + 2p, W + 2p, C]
    which = torch.arange(batch, device=images.device)[:, None, None]
    cropped = padded[which, rows[:, :, None], columns[:, None, :]]  # [B, H, W, C]
    return cropped.permute(0, 3, 1, 2)


def draw_flips(count: int, rng: Generator) -> Tensor:
    """Sample which images to mirror, each with probability 1/2; bool [count]."""
    return torch.rand(count, generator=rng) < 0.5


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror the images for which `flips` is true, [B, C, H, W] and [B] -> [B, C, H, W]."""
    return torch.where(flips.to(images.device)[:, None, None, None], images.flip(-1), images)
