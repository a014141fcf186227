"""The programs in docs/using-a-model-elsewhere.md run as printed, and answer as `predict` does."""

import ast
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.docs.examples import blocks_in
from tests.models.kinds import KINDS, perturbed

import reslab
from reslab.deploy.metadata import PARITY, metadata_of
from reslab.deploy.openvino_file import openvino_draft
from reslab.deploy.torch_program import TorchProgram
from reslab.models.model_file import load_model

DOCUMENT = Path(__file__).parents[2] / "docs" / "using-a-model-elsewhere.md"
PROGRAMS = {
    block.section: block.code
    for block in blocks_in(DOCUMENT.read_text())
    if block.language == "python"
}
CLASSES = ("tabby cat", "dog", "mouse")
# section -> the packages that its program may import, beside Python's own
PACKAGES = {
    "ONNX": {"numpy", "PIL", "onnxruntime"},
    "torch.export": {"numpy", "PIL", "torch"},
    "OpenVINO": {"numpy", "PIL", "openvino"},
}
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
ANSWER = re.compile(r"^(\S+) +([\d.]+) %  (.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, its exports, and two images, one of them turned by EXIF."""
    folder = tmp_path_factory.mktemp("elsewhere")
    preprocessing = reslab.Preprocessing.of([120.0, 110, 100], [50.0, 60, 70], size=24, resize=29)
    file = folder / "net.safetensors"
    reslab.save(perturbed(KINDS["batch norm"]), CLASSES, preprocessing, file)
    for to in ("onnx", "torch-export"):
        reslab.export(file, to, on_event=None).path.rename(folder / f"model{SUFFIXES[to]}")
    model = load_model(file)
    for suffix, content in openvino_draft(model).contents(metadata_of(model, "crops")).items():
        (folder / f"model{suffix}").write_bytes(content)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((70, 50))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    image.save(folder / "a.png")
    image.save(folder / "b.jpg", exif=exif)
    return folder


@pytest.mark.parametrize("section", PACKAGES)
def test_the_program_answers_as_predict_does(
    section: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in PACKAGES[section]:
        pytest.importorskip(package)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["program.py", "a.png", "b.jpg"])
    exec(compile(PROGRAMS[section], section, "exec"), {"__name__": "__main__"})
    found = [(file, name, float(p)) for file, p, name in ANSWER.findall(capsys.readouterr().out)]
    expected = [
        (result.file, entry.name, 100 * entry.probability)
        for result in reslab.predict("net.safetensors", ["a.png", "b.jpg"], top=3)
        for entry in result.results
    ]
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert all(abs(one[2] - two[2]) <= 0.1 for one, two in zip(found, expected, strict=True))


@pytest.mark.parametrize("section", PACKAGES)
def test_the_program_needs_nothing_else(section: str) -> None:
    tree = ast.parse(PROGRAMS[section])
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names == PACKAGES[section]


def test_the_files_hold_the_verdict_of_their_proof(folder: Path) -> None:
    verdict = json.loads(TorchProgram(folder / "model.pt2").metadata()[PARITY])
    assert verdict["passed"]
    assert verdict["images"] >= 12
    assert verdict["sizes"] >= 3


def test_the_program_for_onnx_has_fifteen_lines() -> None:
    lines = [line for line in PROGRAMS["ONNX"].splitlines() if line.strip()]
    assert len(lines) <= 15
