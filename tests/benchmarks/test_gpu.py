"""`benchmarks/gpu.py`: all kinds of steps work without the command's packages; none is lost."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import gpu
import gpu_report
import gpu_worker
from gpu_checks import Outcome, compare_with_eager
from gpu_setting import Notes, distance, pattern_set

ROOT = Path(__file__).parents[2]
# one step of each kind
STEPS = [*gpu.CHECKS, "speed-resnet20", "speed-resnet1202", "speed-resnet50", "cifar10-resnet20"]
ABSENT = """
import sys
for name in (
    "jinja2", "matplotlib", "platformdirs", "plotext", "pooch", "pycocotools", "rich", "scipy",
    "simplejpeg", "sklearn", "tqdm", "typer", "yaml",
):
    sys.modules[name] = None
"""
WORKER = """
import json, os, sys, time
for step in sys.argv[sys.argv.index("--steps") + 1:]:
    print("a message", flush=True)
    print(json.dumps({"step": step, "kind": "begin"}), flush=True)
    print(json.dumps({"step": step, "kind": "fact", "what": "number", "value": 1}), flush=True)
    if step == "engines":
        os._exit(3)
    if step == "precision":
        time.sleep(60)
    print(json.dumps({"step": step, "kind": "end", "status": "ok", "seconds": 1}), flush=True)
"""


def test_a_rehearsal_carries_out_each_kind_of_step(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ABSENT)
    path = os.pathsep.join(map(str, (tmp_path, ROOT / "src", ROOT / "benchmarks")))
    command = [sys.executable, "benchmarks/gpu.py", "--rehearse", "--out", tmp_path / "out"]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, "--only", *STEPS], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    log = (tmp_path / "out" / "worker.log").read_text()
    assert run.returncode == 0, run.stdout + run.stderr + log[-3000:]
    steps = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(steps) == STEPS
    assert {step["status"] for step in steps.values()} == {"ok"}
    checks = [each for step in steps.values() for each in step["records"].values()
              if each["kind"] == "check"]  # fmt: skip
    assert len(checks) > 15
    assert all(check["passed"] for check in checks)
    speed = steps["speed-resnet20"]["records"]["ResNet-20, torch, bf16"]
    assert speed["images_per_second"] * speed["milliseconds"] == pytest.approx(8 * 1e3)
    result = tmp_path / "out" / "runs" / "cifar10-resnet20-seed1" / "result.json"
    run_record = steps["cifar10-resnet20"]["records"]["cifar10-resnet20"]
    assert run_record["sha256"] == json.loads(result.read_text())["weights_sha256"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert f"| 4 of 4 | {run_record['test_error']:.2f} | 8.75 |" in report


def test_every_step_has_its_work() -> None:
    assert list(gpu_worker.WORK) == list(gpu.STEPS)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gpu.Worker:
    """A worker of the test's own, which crashes in a step and hangs in another."""
    (tmp_path / "gpu_worker.py").write_text(WORKER)
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    return gpu.Worker(["--steps"], tmp_path / "log", time.time() + 300, slower=0.1)


def test_a_crash_and_a_hang_lose_one_step_each(
    worker: gpu.Worker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = gpu.Results(tmp_path / "results.json")
    gpu.carry_out(["machine", "engines", "precision", "runs"], worker, results)
    statuses = {name: step["status"] for name, step in results.steps.items()}
    assert statuses == {"machine": "ok", "engines": "failed", "precision": "failed", "runs": "ok"}
    assert results.steps["engines"]["records"]["number"]["value"] == 1
    assert json.loads((tmp_path / "results.json").read_text()) == results.steps
    assert results.has_failures()
    assert "engines: failed" in capsys.readouterr().out


def test_a_step_that_has_no_time_is_repeated(
    worker: gpu.Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = gpu.Results(tmp_path / "results.json")
    monkeypatch.setattr(gpu, "LEAST", 0.1)
    late = gpu.Worker(worker.arguments, worker.log, time.time() + 3, slower=1)
    gpu.carry_out(["machine", "precision"], late, results)
    assert results.steps["precision"]["status"] == "no time"
    assert [results.is_done(step) for step in ("machine", "precision", "runs")] == [
        True,
        False,
        False,
    ]
    gpu.carry_out(["runs"], gpu.Worker([], worker.log, time.time(), 1), results)
    assert "runs" not in results.steps


def test_a_worker_that_cannot_begin_ends_the_command(worker: gpu.Worker, tmp_path: Path) -> None:
    (tmp_path / "gpu_worker.py").write_text("raise SystemExit(2)")
    with pytest.raises(SystemExit, match=r"cannot begin, see .*log"):
        gpu.carry_out(["machine"], worker, gpu.Results(tmp_path / "results.json"))


def test_a_recipe_needs_its_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["gpu.py", "--out", str(tmp_path / "out"), "--only", "cifar10-resnet56"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert "cifar10-resnet56: name the folder of CIFAR-10 with --data" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failed_check_shows_in_the_report() -> None:
    check = {"kind": "check", "what": "loss", "value": "3e-2, at most 1e-2", "passed": False}
    steps = {
        "machine": {"status": "ok", "records": {}},
        "precision": {"status": "failed", "records": {"loss": check}},
    }
    report = gpu_report.report(steps)
    assert "| loss | 3e-2, at most 1e-2 | **failed** |" in report
    assert "- precision: failed" in report
    assert "machine" not in report


@pytest.mark.parametrize(
    ("apart", "rounded_apart", "passed"),
    [(0.01, None, True), (0.03, None, False), (0.25, 0.2, True), (0.35, 0.2, False)],
)
def test_kernels_may_be_little_farther_from_fp32_than_the_eager_update(
    apart: float, rounded_apart: float | None, passed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """In bf16 it may be 1.5 times as far as the eager update, whose distance is `rounded_apart`."""

    def outcome(distance: float) -> Outcome:
        return Outcome([1.0], torch.tensor([1.0, distance]), bits="")

    exact = outcome(0)
    plain = exact if rounded_apart is None else outcome(rounded_apart)
    compare_with_eager("net", outcome(apart), plain, exact, Notes("engines"))
    loss, gradient = map(json.loads, capsys.readouterr().out.splitlines())
    assert loss["passed"]
    assert gradient["passed"] == passed


def test_patterns_can_be_learned() -> None:
    train, test = pattern_set("train", 200), pattern_set("test", 100)
    assert not torch.equal(train.images[:100], test.images)
    means = torch.stack([train.images[train.labels == k].float().mean(0) for k in range(10)])
    apart = (test.images.float()[:, None] - means).flatten(2).norm(dim=2)
    assert (apart.argmin(1) == test.labels).all()


def test_distance_is_relative_to_the_second_vector() -> None:
    assert distance(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])) == pytest.approx(5 / 4)
