"""The command as a user meets it; signals and studies run in processes of their own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import wait_until

from reslab.cli import VERBS, main, verb_name

Reslab = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Any]  # as in the fixtures of tests/conftest.py
Printed = subprocess.CompletedProcess[str]

SHORT = (
    "--set", "iterations=12", "--set", "batch_size=16", "--set", "model.blocks=[1,1,1]",
    "--set", "recompute_bn=1", "--set", "checkpoint_every=4", "--set", "eval_every=6",
)  # fmt: skip
NAMES = [verb_name(verb) for verb in VERBS]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that `printed` trains."""
    return tmp_path_factory.mktemp("runs") / "first"


@pytest.fixture(scope="module", autouse=True)
def printed(reslab: Reslab, run: Path) -> Printed:
    """Train a run; return the output of the command."""
    done = reslab("train", "digits-resnet20", "--out", run, *SHORT)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("verb", NAMES)
def test_every_verb_has_help_with_an_example(capsys, verb: str) -> None:
    assert main([verb, "--help"]) == 0
    assert f"Example: reslab {verb}" in capsys.readouterr().out


def test_help_and_version_load_no_torch() -> None:
    code = (
        "import sys; from reslab.cli import main; "
        "sys.exit(main(['--help']) or main(['--version']) or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("reslab ")


def test_recipes_prints_what_set_takes(capsys) -> None:
    assert main(["recipes", "cifar10-resnet110"]) == 0
    out = capsys.readouterr().out
    assert "learning_rate = 0.1" in out
    assert "warmup.until_train_error = 80.0" in out
    assert main(["recipes", "cifar10-resnet110", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["iterations"] == 64_000
    assert main(["recipes", "--json"]) == 0
    assert "digits-plain56" in {fields["name"] for fields in json.loads(capsys.readouterr().out)}


def test_models_prints_one_json_list(capsys) -> None:
    assert main(["models", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(found["resnet1202"]) == {"name", "depth", "parameters", "multiply_adds"}
    assert found["resnet1202"]["parameters"] == 19_421_274
    assert f"{found['resnet1202']['multiply_adds'] / 1e6:.0f}" == "2829"
    assert found["resnet50-3x3"]["parameters"] == 25_557_032


def test_train_prints_its_result_and_evaluate_finds_the_same(capsys, run: Path) -> None:
    assert main(["train", "digits-resnet20", "--out", str(run), *SHORT, "--json"]) == 0
    again = capsys.readouterr()
    result = json.loads(again.out)
    assert "finished" in again.err
    assert main(["evaluate", str(run), "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report.pop("model") == str(run)
    core = ("set", "protocol", "n", "top1_error", "top5_error", "loss")
    trained = {key: result["evaluation"][0][key] for key in core}
    assert {key: report[key] for key in core} == pytest.approx(trained)
    assert main(["evaluate", str(run / "model.safetensors"), "--json"]) == 0
    (from_file,) = json.loads(capsys.readouterr().out)
    assert from_file["top1_error"] == report["top1_error"]


def test_progress_goes_to_standard_error_as_lines(run: Path, printed: Printed) -> None:
    assert re.search(
        r"iteration 12/12  lr 0.\d+  loss .* training error .* images/s", printed.stderr
    )
    assert "test error" in printed.stderr
    assert printed.stdout.startswith("test: top-1 error")


def test_a_reader_that_goes_away_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(text: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(sys.stderr, "write", write)
    out = tmp_path / "run"
    assert main(["train", "digits-plain20", "--out", str(out), *SHORT]) == 0
    assert (out / "result.json").exists()


def test_report_of_a_run(capsys, run: Path, tmp_path: Path) -> None:
    assert main(["report", str(run), "--out", str(tmp_path / "report")]) == 0
    assert "<svg" in (tmp_path / "report" / "report.html").read_text()


def test_a_study_is_stopped_goes_on_and_is_not_run_again(
    start: Start, reslab: Reslab, capsys, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    command = (
        "study", "degradation", "--depths", "20", "--iterations", "10", "--jobs", "2",
        "--out", study,
    )  # fmt: skip
    begun = start(*command)
    wait_for(study, "runs/*/metrics.jsonl", 2)
    begun.send_signal(signal.SIGINT)
    stopped = begun.end()
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command resumes" in stopped.stderr
    for run in (study / "runs").iterdir():  # every run is saved or finished
        assert list(run.glob("checkpoints/*.safetensors")) or (run / "result.json").exists()
    assert reslab("resume", study / "runs" / "plain20-seed1").returncode == 0
    first = (study / "runs" / "plain20-seed1" / "result.json").stat().st_mtime_ns
    done = reslab(*command)
    assert done.returncode == 0, done.stderr
    files = {"report.html", "report.md", "table.md", "table.csv"}
    assert {path.name for path in study.iterdir()} == {"runs", "logs", "figures", *files}
    assert (study / "runs" / "plain20-seed1" / "result.json").stat().st_mtime_ns == first
    runs = [str(study / "runs" / f"{net}20-seed1") for net in ("plain", "resnet")]
    assert main(["study", "responses", *runs, "--out", str(tmp_path / "responses")]) == 0
    assert (tmp_path / "responses" / "figures" / "responses.svg").exists()


def wait_for(folder: Path, pattern: str, count: int = 1) -> None:
    """Wait until `count` files match the pattern and are not empty."""
    wait_until(lambda: sum(map(holds_something, folder.glob(pattern))) >= count)


def holds_something(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # replaced in the meantime
        return False


LONG = ("--set", "iterations=60", "--set", "checkpoint_every=5", "--set", "eval_every=60",
        "--set", "recompute_bn=2", "--set", "batch_size=16",
        "--set", "model.blocks=[1,1,1]")  # fmt: skip


@pytest.fixture(scope="module")
def unstopped(reslab, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("unstopped") / "run"
    assert reslab("train", "digits-resnet20", "--out", out, *LONG).returncode == 0
    return json.loads((out / "result.json").read_text())["state_sha256"]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_signal_loses_nothing(
    start: Start, reslab: Reslab, unstopped: str, tmp_path: Path, number: int, status: int
) -> None:
    out = tmp_path / "run"
    begun = start("train", "digits-resnet20", "--out", out, *LONG)
    wait_for(out, "checkpoints/*.safetensors")
    begun.send_signal(number)
    done = begun.end()
    assert done.returncode == status
    assert not (out / "result.json").exists()
    if number != signal.SIGKILL:
        assert f"saved; `reslab resume {out}`" in done.stderr
    assert reslab("resume", out).returncode == 0
    assert json.loads((out / "result.json").read_text())["state_sha256"] == unstopped


# bad input: exit status 2 or 1, one line, no file lost


def test_no_verb(refused) -> None:
    assert "which verb? models, weights, recipes, train" in refused()


def test_an_unknown_verb(refused) -> None:
    assert "did you mean 'train'" in refused("trian", "digits-resnet20")


def test_an_unknown_recipe(refused, tmp_path: Path) -> None:
    assert "did you mean 'digits-resnet20'" in refused("train", "digits-resnt20", "--out", tmp_path)


def test_an_unknown_option(refused) -> None:
    assert "--iteration" in refused("study", "degradation", "--iteration", "3")


@pytest.mark.parametrize(
    ("change", "reason"), [("iteratons=3", "'iterations'"), ("iterations=x", "valid integer")]
)
def test_a_bad_change(refused, tmp_path: Path, change: str, reason: str) -> None:
    out = tmp_path / "run"
    assert reason in refused("train", "digits-resnet20", "--out", out, "--set", change)
    assert not out.exists()


def test_missing_data(refused, tmp_path: Path) -> None:
    arguments = ("train", "cifar10-resnet20", "--out", tmp_path / "run", "--data", tmp_path / "no")
    assert "no such folder" in refused(*arguments)


def test_a_closed_network(refused, tmp_path: Path) -> None:
    line = refused(
        "train", "cifar10-resnet20", "--out", tmp_path / "run",
        RESLAB_DATA=str(tmp_path), https_proxy="http://127.0.0.1:9",
    )  # fmt: skip
    assert "put cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a)" in line
    assert str(tmp_path) in line


def test_a_folder_that_is_no_run(refused, tmp_path: Path) -> None:
    assert "not a run folder" in refused("resume", tmp_path)
    assert "not a run folder" in refused("report", tmp_path)
    assert "no model at" in refused("evaluate", tmp_path)


def test_a_run_made_with_another_recipe(refused, run: Path) -> None:
    before = (run / "result.json").read_bytes()
    line = refused("train", "digits-resnet20", "--out", run, *SHORT, "--set", "momentum=0.5")
    assert "momentum: 0.9 -> 0.5" in line
    assert (run / "result.json").read_bytes() == before


def test_a_damaged_recipe_file(refused, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "recipe.json").write_text('{"name": ')
    assert "recipe.json: the recipe is not valid JSON" in refused("resume", copy)


def test_unknown_protocol_and_set(refused, run: Path) -> None:
    assert "one-crop" in refused("evaluate", run, "--protocol", "onecrop")
    assert "cifar10" in refused("evaluate", run, "--on", "cifar-10")


def test_images_of_another_size(refused, run: Path, random_cifar10: Path) -> None:
    line = refused("evaluate", run, "--on", "cifar10", "--data", random_cifar10)
    assert "[3, 16, 16]" in line
    assert "[3, 32, 32]" in line


def as_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.mark.skipif(as_root(), reason="root may write everywhere")
def test_a_read_only_place(refused, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    line = refused("train", "digits-resnet20", "--out", tmp_path / "run", *SHORT, status=1)
    assert "permission denied" in line


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 1.3 MB; skip the test if it may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1300k", "tmpfs", str(place)]
    if not as_root() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let the test mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_loses_no_run(reslab, refused, unstopped: str, small_disk: Path) -> None:
    """A checkpoint takes 0.6 MB, so the third does not fit, nor does the final model."""
    out = small_disk / "run"
    done = reslab("train", "digits-resnet20", "--out", out, *LONG)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    last = lines[-1]
    refused_ones = [line for line in lines if "no checkpoint at iteration" in line]
    assert "no space left on device" in refused_ones[0]
    assert lines.index(refused_ones[0]) < len(lines) - 2  # training continued
    assert "no space left on device" in last
    assert f"`reslab resume {out}`" in last
    assert "Traceback" not in done.stderr
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    assert reslab("resume", out).returncode == 0
    assert json.loads((out / "result.json").read_text())["state_sha256"] == unstopped


def test_a_read_only_file_system(reslab, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = reslab("train", "digits-resnet20", "--out", small_disk / "run", *SHORT)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        f"reslab: read-only file system: {small_disk / 'run'}"
    ]
