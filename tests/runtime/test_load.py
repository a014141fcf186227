import os
import time
from pathlib import Path

import pytest

from reslab.runtime import load
from reslab.runtime.load import allowed_cores, busy_ticks, watch_load

STAT = """cpu  1100 22 33 444 55 6 7 8 9 9
cpu0 1000 20 30 400 50 6 7 8 5 5
cpu1 100 2 3 44 5 0 0 0 4 4
intr 12345 1 2
"""


def test_busy_ticks_are_those_of_usable_cores_that_are_neither_idle_nor_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last two columns, time given to guests, are part of the first two."""
    monkeypatch.setattr(load, "core_numbers", lambda: {0})
    assert busy_ticks(STAT) == 1000 + 20 + 30 + 6 + 7 + 8
    monkeypatch.setattr(load, "core_numbers", lambda: {0, 1})
    assert busy_ticks(STAT) == 1071 + 105


def test_work_of_this_process_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 4 seconds the cores were busy for 5, and this process for 2 of them."""
    stat = tmp_path / "stat"
    stat.write_text(f"cpu0 {100} 0 0 0 0 0 0 0 0 0\n")
    clock = {"process": 10.0, "wall": 50.0}
    monkeypatch.setattr(load, "STAT", stat)
    monkeypatch.setattr(load, "core_numbers", lambda: {0})
    monkeypatch.setattr(load, "usable_cores", lambda: 1)
    monkeypatch.setattr(time, "process_time", lambda: clock["process"])
    monkeypatch.setattr(time, "monotonic", lambda: clock["wall"])
    busy_elsewhere = watch_load()
    ticks = os.sysconf("SC_CLK_TCK")
    stat.write_text(f"cpu0 {100 + 5 * ticks} 0 0 0 0 0 0 0 0 0\n")
    clock.update(process=12.0, wall=54.0)
    assert busy_elsewhere() == pytest.approx((5 - 2) / 4)
    clock.update(process=16.0)  # ticks are coarser than the process's own clock
    assert busy_elsewhere() == 0
    clock.update(process=12.0, wall=52.0)
    assert busy_elsewhere() == 1  # of one core


def test_without_proc_the_load_of_the_last_minute_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "STAT", tmp_path / "missing")
    monkeypatch.setattr(load, "usable_cores", lambda: 4)
    for average, busy in ((1.5, 1.5), (9.0, 4)):
        monkeypatch.setattr(os, "getloadavg", lambda average=average: (average, 0.1, 0.1))
        assert watch_load()() == busy


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000", 1.5), ("max 100000", 4), ("800000 100000", 4), (None, 4)]
)
def test_a_containers_limit_counts(
    text: str | None, cores: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "usable_cores", lambda: 4)
    if text is not None:
        (tmp_path / "cpu.max").write_text(text + "\n")
    assert allowed_cores(tmp_path) == cores


@pytest.mark.skipif(not load.STAT.exists(), reason="not Linux")
def test_the_ticks_of_this_machine_are_read() -> None:
    first = busy_ticks(load.STAT.read_text())
    end = time.process_time() + 0.1  # ticks of at most 10 ms
    while time.process_time() < end:
        pass
    assert busy_ticks(load.STAT.read_text()) > first > 0
