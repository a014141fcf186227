"""Augmentation of a whole batch at once; pure functions of the pictures and a generator."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

WHOLE = slice(None)  # of a mini-batch


def pad_and_crop(
    images: Tensor, pad: int, rng: Generator, size: int | None = None, part: slice = WHOLE
) -> Tensor:
    """Zeros on all sides, then a crop of the old size at one of (2 pad + 1)^2 offsets (Sec. 4.2).

    [B, C, H, W] -> [B, C, H, W]; pictures whose mean is subtracted are padded with the mean.
    Numbers are drawn for `size` pictures, of which `images` are a part: the others may be with
    other processes.
    """
    batch, _, height, width = images.shape
    drawn = torch.randint(0, 2 * pad + 1, (2, size or batch, 1), generator=rng)
    offsets = drawn[:, part].to(images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # [B, H]
    columns = offsets[1] + torch.arange(width, device=images.device)  # [B, W]
    padded = F.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)  # [B, H + 2p, W + 2p, C]
    which = torch.arange(batch, device=images.device)[:, None, None]
    cropped = padded[which, rows[:, :, None], columns[:, None, :]]  # [B, H, W, C]
    return cropped.permute(0, 3, 1, 2)


def random_flip(
    images: Tensor, rng: Generator, size: int | None = None, part: slice = WHOLE
) -> Tensor:
    """Each picture mirrored with probability one half, [B, C, H, W] -> [B, C, H, W]; see above."""
    heads = torch.rand(size or len(images), 1, 1, 1, generator=rng)[part] < 0.5
    return torch.where(heads.to(images.device), images.flip(-1), images)
