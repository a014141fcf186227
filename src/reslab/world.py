"""Where a run computes: the device, the precision, and how this process uses them."""

import ctypes
import os
import sys
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "fp32"]

# glibc's names for mallopt (malloc.h); the values are part of its binary interface
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


@dataclass(frozen=True)
class World:
    """One device and the precision of training on it; evaluation is fp32 everywhere."""

    device: torch.device
    precision: Literal["bf16", "fp32"]

    def autocast(self) -> torch.autocast:
        """Forward passes inside compute in bf16 where the precision says so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def open_world(precision: Precision = "auto") -> World:
    """The best device here, prepared for training; `auto` is bf16 where the hardware has it.

    Sets process-wide switches (denormals, the allocator, exact fp32, repeatable kernels), so it
    is called by whoever owns the process's work, once, before the first tensor.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_flush_denormal(True)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    else:
        _keep_freed_memory()
    chosen = precision if precision != "auto" else "bf16" if _has_bf16(device) else "fp32"
    return World(device, chosen)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _keep_freed_memory() -> None:
    """Let the C library keep freed activations, in huge pages.

    By default each large tensor is mapped anew at every use, and its pages are faulted in one by
    one: up to 15 % of a training step of ResNet-20.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch at its first allocation
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # a C library other than glibc
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most it takes
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(_M_TOP_PAD, 64 << 20)
