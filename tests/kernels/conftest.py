"""A fixture for the tests of the C++ kernels: compiled for each instruction set of this machine."""

from contextlib import suppress

import pytest

from reslab.kernels.build import (
    Instructions,
    Kernels,
    KernelsMissing,
    instructions_for,
    load_kernels,
)


def available() -> list[Instructions]:
    """Return the instruction sets that this processor has."""
    try:
        best = instructions_for("fp32")
    except KernelsMissing:
        return []
    wanted: list[Instructions] = [best, "avx2"]
    with suppress(KernelsMissing):
        wanted.append(instructions_for("bf16"))
    return list(dict.fromkeys(wanted))


@pytest.fixture(scope="module", params=available())
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """The kernels for one instruction set after the other; skip without a compiler."""
    try:
        return load_kernels(request.param, print)
    except KernelsMissing as missing:
        pytest.skip(str(missing))
