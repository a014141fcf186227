"""Crop, mirror and preprocess a mini-batch of images in memory, in one pass in C++."""

import ctypes

import torch
from torch import Tensor

from reslab.kernels.build import Kernels

POINTER, STRIDE = ctypes.c_void_p, ctypes.c_int64


class ImageSet(ctypes.Structure):
    """The structure of this name in crop.h."""

    _fields_ = (
        ("pixels", POINTER),
        ("image", STRIDE),
        ("channel", STRIDE),
        ("row", STRIDE),
        ("column", STRIDE),
        ("mean", POINTER),
        ("std", POINTER),
        ("side", ctypes.c_int),
        ("reversed", ctypes.c_bool),
    )


class Cropper:
    """Crops of 8-bit RGB images [N, 3, S, S]: preprocessed, padded with zeros, mirrored."""

    def __init__(
        self, kernels: Kernels, images: Tensor, mean: Tensor, std: Tensor, *, pad: int, bgr: bool
    ) -> None:
        """Subtract `mean`, [3, S, S], and divide by `std`, [3]; `bgr` reverses the channels."""
        self.library, self.images, self.pad = kernels.library, images, pad
        self.side = images.shape[-1]
        assert images.dtype == torch.uint8
        assert images.shape[1:] == mean.shape == (3, self.side, self.side)
        self.mean, self.std = mean.permute(1, 2, 0).contiguous(), std.contiguous()
        assert self.mean.dtype == self.std.dtype == torch.float32
        divides = bool((std != 1).any())
        self.image_set = ImageSet(
            images.data_ptr(), *images.stride(), self.mean.data_ptr(),
            self.std.data_ptr() if divides else None, self.side, bgr,
        )  # fmt: skip

    def __call__(self, indices: Tensor, offsets: Tensor | None, flips: Tensor | None) -> Tensor:
        """Return crops [B, 3, S, S], channels last.

        `indices` are int64 [B]; `offsets` in the padded image, int64 [B, 2], row and column; and
        `flips` bool [B].
        """
        count = len(indices)
        if offsets is None:
            corners = torch.zeros(count, 2, dtype=torch.int64)
        else:
            corners = (offsets - self.pad).contiguous()
        mirrored = torch.zeros(count, dtype=torch.bool) if flips is None else flips.contiguous()
        chosen = indices.contiguous()
        crops = torch.empty(count, self.side, self.side, 3)
        self.library.crop_images(
            ctypes.byref(self.image_set), count, POINTER(chosen.data_ptr()),
            POINTER(corners.data_ptr()), POINTER(mirrored.data_ptr()),
            POINTER(crops.data_ptr()), torch.get_num_threads(),
        )  # fmt: skip
        return crops.permute(0, 3, 1, 2)
