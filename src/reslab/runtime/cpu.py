"""Choose the arithmetic: a run's precision, and RESLAB_CPU, which limits the CPU's instructions.

The limit is for tests of older CPUs, and for comparing machines.
"""

import os
from typing import Literal

Precision = Literal["auto", "bf16", "fp32"]

VARIABLE = "RESLAB_CPU"
# environment variables that torch and oneDNN read at their first computation
SWITCHES = {"avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}


def kernel_limit() -> str | None:
    """Return the instruction set that RESLAB_CPU names, or None if it is unset.

    Raise ValueError if the name is unknown.
    """
    name = os.environ.get(VARIABLE) or None
    if name is not None and name not in SWITCHES:
        raise ValueError(
            f"{VARIABLE}={name} is unknown; set it to {' or '.join(SWITCHES)}, or leave it unset"
        )
    return name


def limit_kernels() -> None:
    """Apply RESLAB_CPU to torch and oneDNN, in this process and its child processes.

    Call this before torch computes anything; torch may already be imported.
    """
    if name := kernel_limit():
        os.environ |= SWITCHES[name]
