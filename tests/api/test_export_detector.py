"""`export` writes a detector that detects elsewhere, with its proof."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Refused
from tests.detection.small import SCENES, detector

import reslab
from reslab.api.export import ExportedModel
from reslab.cli import main
from reslab.deploy.metadata import PARITY
from reslab.deploy.runtimes import OnnxRuntime
from reslab.detection.predict import detector_bytes
from reslab.detection.recipe import InferenceConfig

# without proposals
BLIND = InferenceConfig(shorter=48, longest=96, smallest=500)
SEARCH = InferenceConfig(shorter=48, longest=96, smallest=4, proposals=20, refine=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a detector's model file, its export beside it, and scenes."""
    out = tmp_path_factory.mktemp("export")
    (out / "scenes").mkdir()
    for number in range(3):
        Image.fromarray(SCENES.test.image(number)).save(out / "scenes" / f"{number}.png")
    (out / "it.safetensors").write_bytes(detector_bytes(detector(sure=10, search=SEARCH)))
    return out


@pytest.fixture(scope="module")
def exported(folder: Path) -> ExportedModel:
    result = reslab.export(folder / "it.safetensors", "onnx", on_event=None)
    assert isinstance(result, ExportedModel)
    return result


def test_the_file_lies_beside_the_model_and_holds_its_verdict(
    exported: ExportedModel, folder: Path
) -> None:
    assert exported.path == folder / "it.onnx"
    assert exported.verdict.passed
    assert exported.size == exported.path.stat().st_size
    stored = json.loads(OnnxRuntime(exported.path).metadata()[PARITY])
    assert stored == json.loads(json.dumps(exported.verdict.as_dict()))
    assert stored["images"] == 12
    assert "all matched" in str(exported)


def test_the_file_detects_what_the_model_detects_without_refinement(
    exported: ExportedModel, folder: Path
) -> None:
    ours, theirs = (
        reslab.load_detector(path, threshold=0.1, refine=refine).detect(folder / "scenes/0.png")
        for path, refine in ((folder / "it.safetensors", False), (exported.path, None))
    )
    assert [it.name for it in theirs] == [it.name for it in ours]
    np.testing.assert_allclose([it.box for it in theirs], [it.box for it in ours], atol=0.01)
    assert len(ours) > 1


def test_the_command_proves_it_on_a_folder(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.onnx"
    words = ["export", folder / "it.safetensors", "--to", "onnx", "--out", out]
    assert main([str(word) for word in [*words, "--check", folder / "scenes", "--json"]]) == 0
    printed = capsys.readouterr()
    assert "without box refinement" in printed.err
    found = json.loads(printed.out)
    assert found["file"] == str(out)
    assert found["parity"]["passed"]
    assert found["parity"]["source"] == f"3 from {folder / 'scenes'}, 9 seeded"


def test_what_cannot_be_exported_is_refused(
    exported: ExportedModel, folder: Path, tmp_path: Path, refused: Refused
) -> None:
    out = tmp_path / "out.safetensors"
    line = refused("export", folder / "it.safetensors", "--to", "torchvision", "--out", out)
    assert line.endswith("is a detector, which exports to onnx only, not to torchvision")
    line = refused("export", exported.path, "--to", "onnx", "--out", tmp_path / "new.onnx")
    assert line.endswith("is an exported file: export the model that it was made from")
    blind = detector(sure=10, search=BLIND)
    (tmp_path / "blind.safetensors").write_bytes(detector_bytes(blind))
    line = refused("export", tmp_path / "blind.safetensors", "--to", "onnx", status=1)
    assert "0 detections, too few for a proof; name a folder of images" in line
    assert not list(tmp_path.glob("*.onnx"))
