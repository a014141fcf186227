"""Augmentation of a whole batch at once; pure functions of the pictures and a generator."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def pad_and_crop(images: Tensor, pad: int, rng: Generator) -> Tensor:
    """Zeros on all sides, then a crop of the old size at one of (2 pad + 1)^2 offsets (Sec. 4.2).

    [B, C, H, W] -> [B, C, H, W]; pictures whose mean is subtracted are padded with the mean
    """
    batch, _, height, width = images.shape
    offsets = torch.randint(0, 2 * pad + 1, (2, batch, 1), generator=rng).to(images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # [B, H]
    columns = offsets[1] + torch.arange(width, device=images.device)  # [B, W]
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)  # [B, H + 2p, W + 2p, C]
    which = torch.arange(batch, device=images.device)[:, None, None]
    cropped = padded[which, rows[:, :, None], columns[:, None, :]]  # [B, H, W, C]
    return cropped.permute(0, 3, 1, 2)


def random_flip(images: Tensor, rng: Generator) -> Tensor:
    """Each picture mirrored with probability one half, [B, C, H, W] -> [B, C, H, W]."""
    heads = torch.rand(len(images), 1, 1, 1, generator=rng) < 0.5
    return torch.where(heads.to(images.device), images.flip(-1), images)
