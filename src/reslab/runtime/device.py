"""The device, precision and processes of a run."""

import os
from dataclasses import dataclass, field
from typing import Literal

import torch

from reslab.runtime.cpu import Precision, kernel_limit, limit_kernels
from reslab.runtime.distributed import Processes, SingleProcess, join_processes


@dataclass(frozen=True)
class Device:
    """A device, its training precision, and the processes that train together.

    Evaluation always runs in fp32.
    """

    torch_device: torch.device
    precision: Literal["bf16", "fp32"]
    processes: Processes = field(default_factory=SingleProcess)

    def autocast(self) -> torch.autocast:
        """Return a context in which forward passes run in bf16 if `precision` is bf16."""
        return torch.autocast(
            self.torch_device.type, torch.bfloat16, enabled=self.precision == "bf16"
        )


def setup_device(precision: Precision = "auto") -> Device:
    """Set up and return this machine's best device; `auto` is bf16 if the hardware supports it.

    This sets process-wide switches (flush-to-zero, no TF32, deterministic kernels, RESLAB_CPU), so
    call it once, before creating any tensor. Raise ValueError if there are more processes than
    GPUs, or if RESLAB_CPU cannot take effect.
    """
    limit_kernels()
    kernels = torch.backends.cpu.get_cpu_capability()
    if (limit := kernel_limit()) and kernels != limit.upper():
        raise ValueError(
            f"RESLAB_CPU={limit}, but torch uses {kernels} kernels: set it before torch computes "
            f"anything, on a CPU that supports {limit.upper()}"
        )
    processes = join_processes()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_flush_denormal(True)
    if device.type == "cuda":
        if processes.local > torch.cuda.device_count():
            raise ValueError(
                f"{processes.local} processes on {torch.cuda.device_count()} GPUs: start one "
                "process per GPU, or set CUDA_VISIBLE_DEVICES= to run on the CPU"
            )
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    chosen = precision if precision != "auto" else "bf16" if has_bf16(device) else "fp32"
    return Device(device, chosen, processes)


def has_bf16(device: torch.device) -> bool:
    """Return whether a device computes in bf16 by itself, so that it is faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kernel_limit():
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
