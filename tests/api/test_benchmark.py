"""Benchmarks: rows measured in processes of their own, errors and agreement on a set."""

from pathlib import Path

import pytest
import torch
from onnx import helper
from tests.models.kinds import KINDS, perturbed

import reslab
from reslab.api.benchmark import (
    agreement_of,
    evenly,
    setups_for,
    throughput,
)
from reslab.api.benchmark_figure import draw_benchmark
from reslab.api.benchmark_rows import Benchmark, Throughput
from reslab.api.benchmark_worker import (
    EAGER,
    PHOTOGRAPH,
    Eager,
    Measured,
    Setup,
    Worker,
    call_for,
    example_image,
    measure,
)
from reslab.data.datasets import ImagesInMemory
from reslab.deploy.classifier import logits_graph
from reslab.deploy.metadata import metadata_of
from reslab.evaluation.scoring import Scores
from reslab.models.model_file import load_model

DIGITS = tuple(map(str, range(10)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("benchmark") / "tiny.safetensors"
    config = KINDS["batch norm"].model_copy(update={"classes": 10})
    preprocessing = reslab.Preprocessing.of([120.0, 110, 100], size=24, resize=29)
    reslab.save(perturbed(config), DIGITS, preprocessing, file)
    return file


@pytest.fixture(scope="module")
def measured(model: Path) -> Benchmark:
    return reslab.benchmark(
        model, backend="torch", batches=(1, 3), seconds=0.05, on="digits", images=30, on_event=None
    )


def test_each_row_is_measured(measured: Benchmark, model: Path) -> None:
    assert [row.backend for row in measured.rows] == [EAGER, "torch"]
    for row in measured.rows:
        assert 0.1 < row.first_answer < 300  # importing torch takes longer than the first
        assert 0 < row.p50 <= row.p99
        assert [shown.batch for shown in row.throughput] == [1, 3]
        assert all(shown.images_per_second > 0 for shown in row.throughput)
        assert 50 * 2**20 < row.memory < 4 * 2**30
        assert row.file_size == model.stat().st_size
    assert [shown.speedup for shown in measured.rows[0].throughput] == [1, 1]
    assert measured.image == PHOTOGRAPH


def test_errors_are_those_of_evaluate_and_both_rows_agree(measured: Benchmark, model: Path) -> None:
    """30 images are far from all, so the errors are only near."""
    whole = reslab.evaluate(model, on="digits", on_event=None)[0].report
    assert isinstance(whole, reslab.Report)
    assert measured.images == 30
    assert measured.rows[0].agreement == 100
    assert measured.rows[1].agreement == pytest.approx(100, abs=4)
    assert abs((measured.rows[0].top1_error or 0) - whole.top1_error) < 30


def test_json_and_figure_hold_every_row(measured: Benchmark) -> None:
    document = measured.as_dict()
    assert [row["backend"] for row in document["rows"]] == [EAGER, "torch"]  # type: ignore
    assert document["set"] == "test"
    assert draw_benchmark(measured).startswith("<?xml")
    assert "2 rows" in repr(measured)


def test_mistakes_are_refused_before_any_work(model: Path) -> None:
    with pytest.raises(ValueError, match="`batches`"):
        reslab.benchmark(model, batches=(0,))
    with pytest.raises(ValueError, match="`seconds`"):
        reslab.benchmark(model, seconds=0)
    with pytest.raises(ValueError, match="backend"):
        reslab.benchmark(model, backend="onnx")
    with pytest.raises(ValueError, match="no model given"):
        reslab.benchmark([])


def test_a_backend_that_cannot_run_a_model_is_left_out_with_a_note(model: Path) -> None:
    events: list[dict[str, str]] = []
    setups = list(setups_for([str(model)], "auto", events.append))
    found = [setup.backend for setup in setups]
    missing = [event["text"].split()[0] for event in events]
    assert sorted(found + missing) == sorted([EAGER, "torch", "onnxruntime", "openvino"])


def test_eager_computes_what_the_model_computes(model: Path) -> None:
    loaded = load_model(model)
    images = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    eager = Setup(str(model), EAGER).open()
    assert isinstance(eager.net, Eager)
    assert torch.allclose(eager(images), loaded(images), atol=1e-5)
    assert all(weight.is_contiguous() for weight in eager.net.parameters())


def test_one_image_is_resized_in_its_time_and_a_batch_before(model: Path) -> None:
    loaded = load_model(model)
    assert example_image(loaded).shape == (*PHOTOGRAPH, 3)
    alone, three = call_for(loaded, None)(), call_for(loaded, 3)()
    assert three.shape == (3, 10)
    assert torch.allclose(three, alone.expand(3, -1), atol=1e-5)
    found = measure(lambda: torch.zeros(()), 0.01)
    assert len(found.seconds) >= 1
    assert sum(found.seconds) <= 0.1
    assert found.memory > 50 * 2**20


def test_speedups_are_medians_of_neighbouring_calls() -> None:
    """The machine is slower in the second round: it counts once, and for both rows."""

    def taking(*seconds: float) -> Measured:
        return Measured(seconds, busy=0, memory=0)

    rounds = [
        (taking(2, 2, 9), taking(1)),
        (taking(30, 30), taking(10)),
        (taking(2, 2), taking(1, 1, 1)),
    ]
    found = throughput(4, rounds)
    assert found == Throughput(batch=4, images_per_second=4.0, speedup=2.0)


def test_agreement_counts_equal_answers() -> None:
    expected = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]]).log()
    found = torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.9, 0.1], [float("nan")] * 2]).log()
    assert agreement_of(Scores(found, {}), Scores(expected, {})) == pytest.approx(200 / 3)


def test_images_are_spread_evenly_over_a_set() -> None:
    pixels = torch.zeros(100, 3, 4, 4, dtype=torch.uint8)
    sorted_set = ImagesInMemory("sorted", pixels, torch.arange(100) // 10, DIGITS)
    assert evenly(sorted_set, 10).labels.tolist() == list(range(10))
    assert evenly(sorted_set, 1000) is sorted_set


def test_a_file_that_does_not_take_images_is_refused_in_one_line(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The process that measures it says why, and prints no stack."""
    loaded, file = load_model(model), tmp_path / "a.onnx"
    graph = logits_graph(loaded)
    helper.set_model_props(graph, metadata_of(loaded, "images"))
    file.write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match=r"a\.onnx does not run on uint8 images"):
        Worker(next(setups_for([str(file)], "auto", lambda event: None)))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_runtimes_and_exported_files_share_one_table(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    exported = tmp_path / "tiny.onnx"
    reslab.export(model, "onnx", exported, on_event=None)
    measured = reslab.benchmark(
        [exported, model], batches=(1,), seconds=0.05, on="digits", images=50, on_event=None
    )
    last = measured.rows[-1]
    assert (last.model, last.backend, last.resizes) == (str(exported), "onnxruntime", True)
    assert all(row.agreement == pytest.approx(100, abs=4) for row in measured.rows)
    assert measured.labels()[0] == "tiny.safetensors: eager"
