"""The list of networks that have names, in Python and on the command line."""

import json
from pathlib import Path

import pytest

import reslab
from reslab.api.export import TARGETS, default_out
from reslab.cli import main
from reslab.pretrained import locate, packaged
from reslab.pretrained.table import PUBLISHED


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESLAB_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "weights"


def test_every_published_network_is_listed_with_one_default_for_each_name() -> None:
    entries = reslab.weights()
    listed = {entry.full_name for entry in entries}
    assert listed >= {row.full_name for row in PUBLISHED}
    assert len(listed) == len(entries)
    defaults = [entry.name for entry in entries if entry.default]
    assert sorted(defaults) == sorted({entry.name for entry in entries})
    assert next(e.source for e in entries if e.name == "resnet50") == "torchvision"


def test_the_sources_of_one_network() -> None:
    sources = [entry.source for entry in reslab.weights("resnet50")]
    assert sources == ["torchvision", "torchvision-v2", "timm", "authors"]
    with pytest.raises(ValueError, match="did you mean 'resnet50'"):
        reslab.weights("resnet51")
    (entry,) = reslab.weights("resnet50:timm")
    assert (entry.full_name, entry.default) == ("resnet50:timm", False)
    with pytest.raises(ValueError, match="not by 'tim'"):
        reslab.weights("resnet50:tim")


def test_a_file_in_its_place_is_here(empty_cache: Path) -> None:
    empty_cache.mkdir()
    (empty_cache / "resnet18-f37072fd.pth").write_bytes(b"weights")
    here = {entry.full_name: entry.path for entry in reslab.weights() if entry.path}
    assert here.pop("resnet18:torchvision") == empty_cache / "resnet18-f37072fd.pth"
    assert all(name.endswith(":reslab") for name in here)


def test_the_command_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [entry.as_dict() for entry in reslab.weights()]
    assert main(["weights"]) == 0
    (line,) = [row for row in capsys.readouterr().out.splitlines() if "resnet152:timm" in row]
    assert line.split() == [
        "resnet152:timm", "16.55", "%", "ImageNet", "validation", "241.6", "MB", "Apache-2.0",
    ]  # fmt: skip


def test_a_network_with_a_name_is_exported_into_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "home" / "cifar10-resnet20" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setattr(locate, "packaged", lambda: packaged.packaged(tmp_path / "home"))
    assert default_out("cifar10-resnet20", TARGETS["onnx"]) == Path("cifar10-resnet20.onnx")
    weights_file = default_out("cifar10-resnet20:reslab", TARGETS["torchvision"])
    assert weights_file == Path("cifar10-resnet20-reslab-torchvision.safetensors")
    assert default_out(file, TARGETS["onnx"]) == file.with_name("model.onnx")


def test_one_line_without_a_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # a port that nobody listens on
    assert main(["predict", "resnet50:timm", "cat.jpg"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.endswith(f"/resnet50_a1_0-14fe96d1.pth elsewhere, and put it into {empty_cache}")
