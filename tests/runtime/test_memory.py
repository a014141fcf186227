import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from reslab.runtime import memory
from reslab.runtime.memory import free_memory, must_fit


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


PAGES = """
import resource
from reslab.runtime.memory import kept_memory

def pages_fetched():
    "Return the number of pages that the system provides for 64 MiB."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = min(pages_fetched() for _ in range(5))
with kept_memory():
    inside = min(pages_fetched() for _ in range(5))
print(outside, inside, pages_fetched())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_until_the_end() -> None:
    """Count page faults in a new process, whose heap is small."""
    printed = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, check=True).stdout
    before, inside, afterwards = map(int, printed.split())
    assert before > 20  # pages of 4 KiB, or fewer and larger ones
    assert inside < before / 10
    assert afterwards > before / 2
