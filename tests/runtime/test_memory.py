import os
import platform
import resource
from pathlib import Path

import pytest
import torch

from reslab.runtime import memory
from reslab.runtime.memory import free_memory, kept_memory, must_fit


def test_free_memory_is_less_than_all() -> None:
    free = free_memory()
    assert free is not None
    assert 0 < free < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    unlimited = free_memory()
    assert unlimited is not None
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() is not None
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory() == 4000
    must_fit(4000, "a set", "")
    with pytest.raises(ValueError, match=r"a set needs 0\.0 GiB .* are free: split it"):
        must_fit(4001, "a set", "split it")


def pages_fetched() -> int:
    """Return the number of pages that the system provides for a tensor of 64 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_until_the_end() -> None:
    outside = min(pages_fetched() for _ in range(5))
    with kept_memory():
        inside = min(pages_fetched() for _ in range(5))
    assert outside > 100  # of 4 KiB, or fewer and larger ones
    assert inside < outside / 10
    assert pages_fetched() > outside / 2
