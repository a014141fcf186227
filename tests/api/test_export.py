"""reslab.export: proven files beside the model, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from tests.docs.examples import blocks_in
from tests.models.kinds import FIELDS, perturbed

import reslab
from reslab.api.export import TARGETS, ExportedModel
from reslab.cli import main
from reslab.deploy.metadata import PARITY
from reslab.deploy.proof import Verdict
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model, model_bytes
from reslab.models.preprocessing import Preprocessing

CONFIG = ResNetConfig.model_validate(FIELDS | {"widths": (4, 4, 4)})
CLASSES = ("crane", "kite", "owl")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model file of a tiny net with crops large enough for ONNX's own resizing."""
    preprocessing = Preprocessing.of([120.0, 110.0, 100.0], [60.0, 61.0, 62.0], resize=76, size=66)
    model = Model(perturbed(CONFIG), CLASSES, preprocessing, {}, [], ids=("n1", "n2", "n3"))
    file = tmp_path_factory.mktemp("model") / "birds.safetensors"
    file.write_bytes(model_bytes(model))
    return file


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(14):
        pixels = rng.integers(0, 256, (60 + 9 * number, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "damaged.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    Image.new("RGB", (2000, 10)).save(folder / "thin.png")
    return folder


def test_the_file_is_beside_the_model_with_its_verdict(file: Path, photos: Path) -> None:
    exported = reslab.export(file, "onnx", check=photos, on_event=None)
    assert isinstance(exported, ExportedModel)
    assert exported.path == file.with_name("birds.onnx")
    assert exported.size == exported.path.stat().st_size
    assert str(exported).startswith(f"{exported.path}: onnx, 0.")
    properties = {item.key: item.value for item in onnx.load(exported.path).metadata_props}
    verdict = json.loads(properties[PARITY])
    assert verdict == exported.as_dict()["parity"]
    assert verdict["source"] == f"12 from {photos}, 6 seeded"
    assert properties["names"] == "{0: 'crane', 1: 'kite', 2: 'owl'}"
    assert properties["imgsz"] == "[66, 66]"
    images = sorted(photos.glob("?.png"))
    expected, found = (reslab.load(each).predict(images) for each in (file, exported.path))
    for row, wanted in zip(found, expected, strict=True):
        assert [(it.name, it.id) for it in row] == [(it.name, it.id) for it in wanted]
        assert [it.probability for it in row] == pytest.approx(
            [it.probability for it in wanted], abs=2e-3
        )
    exact = reslab.export(file, "onnx", exported.path.with_name("exact.onnx"), exact=True)
    assert isinstance(exact, ExportedModel)
    assert isinstance(exact.verdict, Verdict)
    assert exact.verdict.difference < 1e-5
    assert exact.verdict.source == "seeded"


def test_the_command_prints_the_verdict(file: Path, photos: Path, tmp_path: Path, capsys) -> None:
    command = ["export", str(file), "--to", "onnx", "--check", str(photos), "--exact"]
    assert main([*command, "--out", str(tmp_path / "a.onnx")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{tmp_path / 'a.onnx'}: onnx, ")
    assert "18 images (12 from" in printed[1]
    assert printed[1].endswith("all names equal")
    assert main([*command, "--out", str(tmp_path / "b.onnx"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parity"]["passed"]
    assert facts["bytes"] == (tmp_path / "b.onnx").stat().st_size


def test_orders_that_make_no_sense_are_refused(file: Path, tmp_path: Path) -> None:
    def refused(message: str, to: str = "onnx", out: Path | None = None, **options) -> None:
        with pytest.raises(ValueError, match=message):
            reslab.export(options.pop("model", file), to, out, **options)

    refused("no target of export 'onn'; did you mean 'onnx'", "onn")
    refused("`exact` does not apply to torchvision", "torchvision", exact=True)
    refused("must end in .onnx", out=tmp_path / "model.pt")
    refused("there is no folder", out=tmp_path / "nowhere" / "model.onnx")
    refused("holds no images", out=tmp_path / "a.onnx", check=tmp_path)
    refused("`check` .*nowhere: no such folder", "onnx-int8", check=tmp_path / "nowhere")
    exported = tmp_path / "b.onnx"
    reslab.export(file, "onnx", exported, on_event=None)
    refused("is an exported file: export the model", out=tmp_path / "c.onnx", model=exported)
    refused("exists already", out=exported)
    in_memory = reslab.load(file)
    object.__setattr__(in_memory, "path", None)
    refused("was not loaded from a file: say in `out`", model=in_memory)


def test_a_missing_package_is_named_with_its_extra(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reslab.deploy.packages.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"onnx is not installed: pip install 'reslab\[export\]'"):
        reslab.export(file, "onnx", tmp_path / "a.onnx")


def test_a_net_with_a_mean_image_and_no_crop_sees_images_of_its_size(tmp_path: Path) -> None:
    preprocessing = Preprocessing.of(np.arange(3.0 * 16 * 16).reshape(3, 16, 16) / 4)
    file = tmp_path / "digits.safetensors"
    file.write_bytes(model_bytes(Model(perturbed(CONFIG), CLASSES, preprocessing, {}, [])))
    for to in ("onnx", "openvino"):
        exported = reslab.export(file, to, on_event=None)
        assert isinstance(exported, ExportedModel)
        assert exported.verdict.passed


def test_every_target_has_a_default_name(file: Path) -> None:
    for target in TARGETS.values():
        assert target.ending.endswith(target.suffixes)


def test_three_commands_lead_to_a_file_that_needs_no_reslab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Train on a folder of images, export, and run the document's program."""
    rng = np.random.default_rng(1)
    for number, name in enumerate(("apple", "plum")):
        (tmp_path / "fruit" / name).mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(0, 120, (40 + 7 * index, 50, 3), dtype=np.uint8)
            pixels[..., number] += 100
            Image.fromarray(pixels).save(tmp_path / "fruit" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    tiny = ["model.blocks=[1,1]", "model.widths=[4,8]", "batch_size=4", "iterations=1"]
    changes = [word for change in (*tiny, "recompute_bn=1") for word in ("--set", change)]
    train = ["train", "own-resnet18", "--data", "fruit", "--out", "runs/fruit"]
    assert main([*train, *changes]) == 0, capsys.readouterr().err
    assert main(["export", "runs/fruit", "--to", "onnx"]) == 0
    assert "2 from validation, 10 seeded" in capsys.readouterr().out
    document = Path(__file__).parents[2] / "docs" / "using-a-model-elsewhere.md"
    (program,) = (
        block.code
        for block in blocks_in(document.read_text())
        if (block.section, block.language) == ("ONNX", "python")
    )
    program += 'assert not {"torch", "reslab"} & sys.modules.keys()\n'
    done = subprocess.run(
        [sys.executable, "-c", program, "../../fruit/plum/3.png"],
        cwd="runs/fruit", capture_output=True, text=True, check=True,
    )  # fmt: skip
    _, percentage, _, name = done.stdout.splitlines()[0].split()
    best = reslab.load("runs/fruit").predict("fruit/plum/3.png")[0]
    assert name == best.name
    assert float(percentage) == pytest.approx(100 * best.probability, abs=0.25)
