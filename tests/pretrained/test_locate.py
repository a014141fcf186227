"""Names become files: those in the package, downloaded ones, and those put in place by hand."""

import hashlib
import io
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
import torch
from PIL import Image
from tests.pretrained.server import Server, serving

import reslab
from reslab.data.cifar10 import CIFAR10_CLASSES
from reslab.models.config import cifar_config
from reslab.models.convert.layouts import AKAMASTER
from reslab.models.resnet import ResNet, build_resnet
from reslab.pretrained import locate, packaged
from reslab.pretrained.convert import published_model
from reslab.pretrained.locate import located, weights_folder
from reslab.pretrained.table import PUBLISHED, Published
from reslab.runtime.files import sha256_of

ROW = next(row for row in PUBLISHED if row.full_name == "cifar10-resnet20:akamaster")


@dataclass(frozen=True)
class Release:
    """A published file with random weights, and the network that it holds."""

    content: bytes
    net: ResNet

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@pytest.fixture(scope="module")
def release() -> Release:
    """Weights in the file format and layout of akamaster's release."""
    config = cifar_config(20).model_copy(update={"zeros": "both"})
    net = build_resnet(config, torch.Generator().manual_seed(3)).eval()
    names = AKAMASTER.names(net) | {f"fc.{part}": f"linear.{part}" for part in ("weight", "bias")}
    ours = net.state_dict()
    state = {f"module.{theirs}": ours[name] for name, theirs in names.items()}
    file = io.BytesIO()
    torch.save({"state_dict": state, "best_prec1": 91.7}, file)
    return Release(file.getvalue(), net)


@pytest.fixture(scope="module")
def server(release: Release) -> Iterator[Server]:
    with serving(release.content) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, for torch's downloads too."""
    monkeypatch.setenv("RESLAB_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "weights"


@pytest.fixture
def row(release: Release, monkeypatch: pytest.MonkeyPatch) -> Published:
    """The only published network, at an address that does not answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/net.th"
    row = replace(ROW, address=closed, digest=release.digest[:8], file="net.th")
    monkeypatch.setattr(locate, "PUBLISHED", (row,))
    return row


def publish_at(address: str | None, row: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "PUBLISHED", (replace(row, address=address),))


def test_a_network_is_downloaded_once(
    cache: Path, row: Published, server: Server, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_at(server.url("moved"), row, monkeypatch)
    before = len(server.requests)
    file = located("cifar10-resnet20:akamaster")
    assert file.parent == cache
    assert release.digest[:8] in file.name
    assert located("cifar10-resnet20:akamaster") == file
    assert server.requests[before:] == ["/moved/net.th", "/whole/net.th"]
    files = [path.name for path in cache.iterdir() if not path.name.startswith(".")]
    assert files == [file.name]
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    model = reslab.load("cifar10-resnet20:akamaster")
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        expected = release.net((images / 255 - mean) / std)
    assert model.classes == CIFAR10_CLASSES
    assert torch.allclose(model(images), expected, atol=1e-4)


def test_several_processes_download_it_once(
    cache: Path, row: Published, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_at(server.url("slow"), row, monkeypatch)
    before = len(server.requests)
    with ThreadPoolExecutor(3) as pool:
        files = set(pool.map(located, ["cifar10-resnet20:akamaster"] * 3))
    assert len(files) == 1
    assert len(server.requests) == before + 1


def test_without_a_network_one_line_says_what_to_put_where(
    cache: Path, row: Published, release: Release
) -> None:
    with pytest.raises(ValueError, match="cannot be downloaded") as caught:
        located("cifar10-resnet20:akamaster")
    text = str(caught.value)
    assert "\n" not in text
    assert row.address is not None
    assert f"get {row.address} elsewhere, and put it into {cache}" in text
    (cache / row.file).write_bytes(release.content)  # as the line says
    assert located("cifar10-resnet20:akamaster").parent == cache
    assert (cache / row.file).read_bytes() == release.content  # the user's file stays
    assert {entry.path is not None for entry in reslab.weights() if entry.source != "reslab"} == {
        True
    }


def test_a_file_that_torchvision_downloaded_is_found(
    cache: Path, row: Published, release: Release
) -> None:
    checkpoints = cache.parent / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / row.file).write_bytes(release.content)
    assert located("cifar10-resnet20:akamaster").parent == cache


def test_another_file_of_that_name_is_refused(
    cache: Path, row: Published, release: Release
) -> None:
    cache.mkdir()
    (cache / row.file).write_bytes(release.content[:-1] + b"!")
    with pytest.raises(ValueError, match=r"net\.th has the SHA-256 .* begins with .* delete it"):
        located("cifar10-resnet20:akamaster")


def test_a_network_without_an_address_is_used_once_its_file_is_in_place(
    cache: Path, row: Published, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(row, address=None, digest="", source="authors", file="ResNet-50-model.caffemodel")
    monkeypatch.setattr(locate, "PUBLISHED", (row,))
    with pytest.raises(
        ValueError, match=r"download ResNet-50-model\.caffemodel and ResNet_mean\.binaryproto in a"
    ):
        located("cifar10-resnet20:authors")
    (cache / row.file).write_bytes(release.content)
    file = located("cifar10-resnet20:authors")
    (cache / row.file).unlink()
    assert located("cifar10-resnet20:authors") == file


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet51", r"no model at resnet51; did you mean 'resnet50'\?"),
        ("resnet50:keras", "resnet50 is published by .*timm.*, not by 'keras'"),
        ("vgg:torchvision", "no model at vgg:torchvision: `reslab weights` lists the names"),
    ],
)
def test_other_names_are_refused(cache: Path, name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        located(name)


def test_a_path_that_exists_wins(
    cache: Path, row: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert located("runs/first") == Path("runs/first")  # which a later message is about
    os.symlink("nowhere", "cifar10-resnet20")
    assert located("cifar10-resnet20") == Path("cifar10-resnet20")


def test_runs_of_classifiers_and_detectors_start_from_a_name(
    cache: Path, row: Published, release: Release
) -> None:
    cache.mkdir()
    (cache / row.file).write_bytes(release.content)
    classifier = reslab.recipe("cifar10-resnet20", weights=row.full_name)
    detector = reslab.detection_recipe("digit-scenes-resnet20-c4", weights=row.full_name)
    assert classifier.weights == detector.weights == sha256_of(release.net.state_dict())
    assert classifier.model.zeros == detector.model.trunk.zeros == "both"


def test_the_package_comes_first(
    cache: Path, row: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "pretrained"
    (home / row.name).mkdir(parents=True)
    (home / row.name / "model.safetensors").write_bytes(b"weights")
    report = {"set": "test", "top1_error": 8.1}
    (home / row.name / "result.json").write_text(json.dumps({"evaluation": [report]}))
    monkeypatch.setattr(locate, "packaged", lambda: packaged.packaged(home))
    assert located("cifar10-resnet20") == located("cifar10-resnet20:reslab") == home / row.name
    ours, theirs = reslab.weights()
    assert (ours.full_name, ours.default, ours.top1_error) == ("cifar10-resnet20:reslab", True, 8.1)
    assert ours.test_set == "cifar10 test"
    assert (theirs.source, theirs.default, theirs.path) == ("akamaster", False, None)


def test_the_preprocessing_is_that_of_the_published_test(
    row: Published, release: Release, tmp_path: Path
) -> None:
    """As timm tests: Pillow's bicubic filter on the whole image, then the centre."""
    (tmp_path / "net.th").write_bytes(release.content)
    row = replace(row, resize=36, size=32, interpolation="bicubic", as_stored=True)
    model = published_model(row, tmp_path / "net.th")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)
    whole = Image.fromarray(pixels).resize((51, 36), Image.Resampling.BICUBIC)
    crop = torch.from_numpy(np.asarray(whole.crop((10, 2, 42, 34))).copy()).permute(2, 0, 1)
    with torch.no_grad():
        expected = model(crop[None]).softmax(1)[0]
    predictions = reslab.predict(reslab.Predictor(model), pixels)[0].results
    assert predictions[0].probability == pytest.approx(float(expected.max()), abs=1e-5)
    assert predictions[0].name == CIFAR10_CLASSES[int(expected.argmax())]


def test_the_default_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESLAB_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("TORCH_HOME", raising=False)
    if os.name == "posix" and os.uname().sysname == "Linux":
        assert weights_folder() == Path("/somewhere/reslab/weights")
    assert locate.torch_folder() == Path("/somewhere/torch/hub/checkpoints")


@pytest.mark.slow
def test_published_errors_are_reached(cache: Path, shared: Path, real_cifar10: Path) -> None:
    """With the weights that akamaster released, on the whole test set."""
    cache.mkdir()
    file = "resnet20-12fca82f.th"
    copyfile(shared / "weights" / file, cache / file)
    (evaluation,) = reslab.evaluate("cifar10-resnet20:akamaster", data=real_cifar10, on_event=None)
    assert isinstance(evaluation.report, reslab.Report)
    assert round(evaluation.report.top1_error, 2) == ROW.top1_error == 8.27


@pytest.mark.slow
def test_photographs_get_their_names(
    cache: Path, shared: Path, resnet18_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With trained weights in torchvision's layout, put in place by hand."""
    digest = hashlib.sha256(resnet18_file.read_bytes()).hexdigest()[:8]
    known = next(row for row in PUBLISHED if row.full_name == "resnet18:torchvision")
    monkeypatch.setattr(locate, "PUBLISHED", (replace(known, digest=digest),))
    cache.mkdir()
    copyfile(resnet18_file, cache / known.file)
    lines: list[str] = []
    (evaluation,) = reslab.evaluate(
        "resnet18", data=shared / "imagenet" / "samples",
        on_event=lambda event: lines.append(event["text"]) if event["kind"] == "note" else None,
    )  # fmt: skip
    assert isinstance(evaluation.report, reslab.Report)
    assert evaluation.report.top1_error == 22.0  # known for these weights
    assert any("read as stored, as for its published error" in line for line in lines)
    fish = next((shared / "imagenet" / "samples" / "n01440764").iterdir())
    assert reslab.predict("resnet18", fish)[0].results[0].id == "n01440764"
