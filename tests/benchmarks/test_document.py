"""The tables of docs/performance.md: written by code, from the stored results and nothing else."""

import pytest

from document import BEGIN, DOCUMENT, END, RESULTS, Machine, Results, with_part, written_part
from rows import compare, not_installed

MACHINE = Machine(
    processor="A CPU (R), 2 cores", kernels="AVX2", torch="2", python="3", commit="c", date="d"
)


def test_the_document_is_what_the_code_writes() -> None:
    text = DOCUMENT.read_text()
    assert text == with_part(text, written_part(RESULTS))


def test_results_are_stored_under_the_processor_s_name(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("document.RESULTS", tmp_path / "results")
    rows = (
        compare("w", "images/s", reslab=[2.0], peer="p", other=[1.0], path="fp32", check="equal"),
        not_installed("w", "images/s", reslab=[1234.5], peer="q", path="fp32"),
    )
    Results(machine=MACHINE, rows=rows).write()
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["a-cpu-r-2-cores-avx2.json"]
    part = written_part(tmp_path / "results")
    assert part.splitlines()[0] == "### A CPU (R), 2 cores, AVX2"
    assert part.splitlines()[-2:] == [
        "| w | 2 images/s | p | 1 | 2.00 (once) | fp32 | equal |",
        "| w | 1,234 images/s | q |  |  | fp32 | not installed |",
    ]


def test_only_the_part_between_the_marks_is_replaced() -> None:
    before, after = f"# Title\n\n{BEGIN}\n", f"\n{END}\n\n## On a GPU\n"
    assert with_part(f"{before}old{after}", "new") == f"{before}\nnew\n{after}"
