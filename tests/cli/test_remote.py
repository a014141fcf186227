"""Training on, testing on and checking images at a URL, as a user does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.cli.test_own import SMALL
from tests.data.shards.faulty import Faults, FaultyServer, files_of, serving
from tests.data.shards.remote_sets import images, set_of

from reslab.cli import main
from reslab.data.shards.writer import Packing, pack_sets

pytest.importorskip("aiohttp", reason="the extra `remote`")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """Twelve training and six test images, on a server that sometimes fails."""
    monkeypatch.setenv("RESLAB_CACHE", str(tmp_path / "cache"))
    parts = {"train": set_of(images(12)), "validation": set_of(images(6, "v", start=12))}
    pack_sets(parts, tmp_path / "root" / "set", Packing(shard_size=1), lambda bad: None)
    with serving(files_of(tmp_path / "root"), Faults(refused=0.1, short=0.05)) as server:
        yield server


@pytest.mark.filterwarnings("ignore:.*retrying:UserWarning")
def test_a_run_from_afar_is_the_run_from_here(
    server: FaultyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights are equal; resume, evaluate, check and plan use the URL that the run records."""
    url = f"{server.url}/set"
    small = ("--set", "batch_size=4", "--set", "checkpoint_every=2", *SMALL)
    for data, name in ((tmp_path / "root" / "set", "here"), (url, "afar")):
        out = str(tmp_path / name)
        assert main(["train", "own-resnet18", "--data", str(data), "--out", out, *small]) == 0
    here, afar = tmp_path / "here", tmp_path / "afar"
    weights = load_file(here / "model.safetensors")
    for name, tensor in load_file(afar / "model.safetensors").items():
        assert tensor.equal(weights[name]), name
    assert json.loads((afar / "environment.json").read_text())["data"] == url

    for last in sorted((afar / "checkpoints").iterdir())[1:]:
        last.unlink()
    for name in ("result.json", "model.safetensors"):
        (afar / name).unlink()
    assert main(["resume", str(afar)]) == 0
    again = load_file(afar / "model.safetensors")
    assert all(tensor.equal(weights[name]) for name, tensor in again.items())

    capsys.readouterr()
    assert main(["evaluate", str(afar), "--json"]) == 0
    own = json.loads(capsys.readouterr().out)[0]
    assert main(["evaluate", str(here), "--data", url, "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)[0]
    assert (own["n"], own["set"]) == (reported["n"], reported["set"]) == (6, "validation")
    assert own["top1_error"] == reported["top1_error"]

    assert main(["check", url, "--json"]) in (0, 1)
    checked = json.loads(capsys.readouterr().out)
    assert (checked["folder"], checked["pictures"]) == (url, 18)
    assert checked["parts"]["validation"]["classes"] == {"cat": 3, "dog": 3}
    assert not [it for it in checked["findings"] if it["kind"] in ("shards", "unreadable")]

    assert main(["plan", "own-resnet18", "--data", url, "--iterations", "1", "--json", *small]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 12


def test_refusals_are_one_line_and_write_nothing(
    server: FaultyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = Faults()
    out = tmp_path / "out"

    def line(*arguments: str, status: int = 2) -> str:
        assert main([*arguments]) == status
        printed = capsys.readouterr()
        assert printed.out == ""
        (reported,) = printed.err.splitlines()
        assert not out.exists()
        return reported

    def train(url: str, recipe: str = "own-resnet18") -> str:
        return line("train", recipe, "--data", url, "--out", str(out))

    assert "did you mean 'http'?" in train("htp://host/set")
    assert "a URL must begin with http://" in train("http:/host/set")
    assert "no such host" in train("http://no-such-host.invalid/set")
    assert "has no packed images" in train(f"{server.url}/nothing")
    assert "access denied" in train(f"{server.url}/forbidden")
    assert "cifar10 needs a local folder" in train(f"{server.url}/set", "cifar10-resnet20")
    assert "need no folder" in train(f"{server.url}/set", "digits-resnet20")
    assert "needs a local folder" in train(f"{server.url}/set", "own-detection-resnet18-c4")
    assert "needs a local folder" in line("study", "depth", "--data", f"{server.url}/set")
    assert "has no packed images" in line("check", f"{server.url}/nothing")


def test_without_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    extra = "'reslab[remote]'"
    for url, what in (("s3://b/a", extra), ("http://h/a", extra), ("gs://b/a", "gcsfs")):
        assert main(["check", url]) == 1
        reported = capsys.readouterr().err
        assert reported.endswith(f"pip install {what}\n")
        assert reported.count("\n") == 1
