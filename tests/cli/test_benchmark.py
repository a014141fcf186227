"""The table of `reslab benchmark`, and mistakes that are refused before any work."""

from dataclasses import replace
from pathlib import Path

import pytest

from reslab.api.benchmark_rows import Benchmark, BenchmarkRow, Throughput
from reslab.cli.benchmark import print_benchmark

EAGER = BenchmarkRow(
    model="runs/first", backend="eager", precision="fp32", first_answer=2.5, p50=80.1, p99=95.2,
    calls=40, throughput=(Throughput(1, 12.5, 1.0), Throughput(16, 14.0, 1.0)),
    memory=500 * 2**20, file_size=102_500_000, top1_error=24.5, agreement=100.0,
)  # fmt: skip
FAST = replace(
    EAGER, backend="openvino", precision="bf16", throughput=(Throughput(1, 60.0, 4.8),) * 2,
    agreement=99.4,
)  # fmt: skip
QUIET = Benchmark((EAGER, FAST), (375, 500), 500, "validation", cores=2, busy=0.0)


def test_the_table_has_every_number_and_says_what_it_means(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_benchmark(QUIET)
    out = capsys.readouterr().out
    eager, fast = (line.split() for line in out.splitlines() if "102.5" in line)
    assert " ".join(eager) == "eager 2.5 80.1 95.2 12 1.00 14 1.00 500 102.5 24.50 100.0"
    assert fast[:2] == ["openvino", "bf16"]
    assert fast[-1] == "99.4"
    assert "500 images of validation" in out
    assert "500 x 375" in out
    assert "busy" not in out
    assert "resize" not in out


def test_other_load_and_resizing_files_are_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (EAGER, replace(EAGER, model="model.onnx", backend="onnxruntime", resizes=True))
    print_benchmark(replace(QUIET, rows=rows, busy=1.2))
    out = capsys.readouterr().out
    assert "other programs kept 1.2 of 2 cores busy" in out
    assert "model.onnx: onnxruntime" in out
    assert "files that take whole images resize them within these times" in out


def test_without_a_set_there_are_no_columns_of_answers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = tuple(replace(row, top1_error=None, agreement=None) for row in QUIET.rows)
    print_benchmark(replace(QUIET, rows=rows, set_name=None, images=0))
    out = capsys.readouterr().out
    assert "top-1" not in out
    assert "agrees" not in out


def test_mistakes_are_refused(refused, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    figure = tmp_path / "speed.svg"
    figure.touch()
    assert "exists already" in refused("benchmark", tmp_path, "--out", figure)
    assert "must end in .svg" in refused("benchmark", tmp_path, "--out", tmp_path / "speed.png")
    assert "--batches" in refused("benchmark", tmp_path, "--batches", "1;2")
    assert "no model" in refused("benchmark", tmp_path / "nowhere")
