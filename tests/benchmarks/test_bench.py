"""`make bench`: rows are printed and stored as they come; a section may fail or take too long."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bench
import document
from rows import compare

ROW = compare("w", "s", reslab=[1.0], peer="p", other=[2.0], path="fp32", check="equal")
SLOW = f"""
import os, subprocess, sys, time
print({ROW.model_dump_json()!r}, flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with open("pid", "w") as file:
    file.write(str(child.pid))
os.rename("pid", "child")
time.sleep(60)
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sections of a test's own, and results and a document in its folder."""
    (tmp_path / "good.py").write_text(f"print({ROW.model_dump_json()!r})")
    (tmp_path / "bad.py").write_text("print('a message'); raise SystemExit(3)")
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "page.md").write_text(f"before\n{document.BEGIN}\n{document.END}\nafter\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "HERE", tmp_path)
    monkeypatch.setattr(bench, "SECTIONS", {"bad": 60, "good": 60})
    monkeypatch.setattr(document, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(document, "DOCUMENT", tmp_path / "page.md")
    monkeypatch.setattr(sys, "argv", ["bench.py"])
    return tmp_path


def test_a_complete_run_stores_its_rows_and_writes_the_document(
    scripts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.main()
    said = capsys.readouterr().out
    assert "\na message\nbad: failed, see above\n" in said
    assert said.splitlines()[-1].split("  ")[0] == "w"
    (file,) = (scripts / "results").iterdir()
    assert document.Results.model_validate_json(file.read_bytes()).rows == (ROW,)
    page = (scripts / "page.md").read_text()
    assert "| w | 1 s | p | 2 | 2.00 (once) | fp32 | equal |\n\n" in page
    assert page == document.with_part(page, document.written_part(scripts / "results"))


def test_some_sections_only_print(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "good"])
    bench.main()
    assert not (scripts / "results").exists()
    assert "| w |" not in (scripts / "page.md").read_text()


class LateOnceChildExists(threading.Thread):
    """A timer for a busy machine: the time is up once the section has started its process."""

    def __init__(self, seconds: float, stop: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.stop = stop

    def run(self) -> None:
        while not Path("child").exists():
            time.sleep(0.05)
        self.stop()

    def cancel(self) -> None:
        pass


def test_a_slow_section_ends_with_its_processes(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threading, "Timer", LateOnceChildExists)
    assert list(bench.rows_of("slow", seconds=3)) == [ROW]
    assert "slow: stopped after 3 s" in capsys.readouterr().out
    if Path("/proc/self/stat").exists():
        child, end = int((scripts / "child").read_text()), time.monotonic() + 30
        while is_running(child) and time.monotonic() < end:  # a busy machine kills it late
            time.sleep(0.05)
        assert not is_running(child)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_no_section_begins_when_the_time_is_over(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "SECONDS", 0)
    bench.main()
    left_out = [f"{section}: left out, the 0 s are over" for section in bench.SECTIONS]
    assert capsys.readouterr().out.splitlines()[-2:] == left_out
    assert not (scripts / "results").exists()


def test_an_unknown_section_is_refused(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "god"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "unknown section god; the sections are bad, good" in capsys.readouterr().err
