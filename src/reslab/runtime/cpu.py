"""RESLAB_CPU: compute as a lesser processor would, to test it and to compare machines."""

import os

VARIABLE = "RESLAB_CPU"
# what torch and oneDNN read when they first compute
SWITCHES = {"avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}


def kernel_limit() -> str | None:
    """The instruction set that RESLAB_CPU names; None where the processor decides.

    ValueError for an unknown one.
    """
    name = os.environ.get(VARIABLE) or None
    if name is not None and name not in SWITCHES:
        raise ValueError(
            f"{VARIABLE}={name} is not known; allowed: {', '.join(SWITCHES)}, or unset"
        )
    return name


def limit_kernels() -> None:
    """Hand RESLAB_CPU on to torch and oneDNN, here and in the processes that this one starts.

    To be called before torch computes anything; it may have been imported.
    """
    if name := kernel_limit():
        os.environ |= SWITCHES[name]
