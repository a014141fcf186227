"""Where a run computes: the device, the precision, and how this process uses them."""

from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "fp32"]


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

    Sets process-wide switches (denormals, exact fp32, repeatable kernels), so it
    is called by whoever owns the process's work, once, before the first tensor.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_flush_denormal(True)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    chosen = precision if precision != "auto" else "bf16" if _has_bf16(device) else "fp32"
    return World(device, chosen)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
