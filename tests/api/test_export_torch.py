"""Exports to torch.export through `reslab.export`: proven, and read again."""

import json
from pathlib import Path

import pytest
import torch
from tests.models.kinds import KINDS, perturbed

import reslab
from reslab.api.export import ExportedModel
from reslab.deploy.metadata import PARITY
from reslab.deploy.torch_program import TorchProgram

CLASSES = ("cat", "dog", "mouse")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("export") / "net.safetensors"
    preprocessing = reslab.Preprocessing.of([120.0, 110, 100], [50.0, 60, 70], size=24, resize=29)
    reslab.save(perturbed(KINDS["mixed"]), CLASSES, preprocessing, file)
    return file


def test_the_file_is_proven_and_says_so(model: Path, tmp_path: Path) -> None:
    exported = reslab.export(model, "torch-export", on_event=None)
    assert isinstance(exported, ExportedModel)
    assert exported.path == model.with_suffix(".pt2")
    assert exported.verdict.passed
    stored = json.loads(TorchProgram(exported.path).metadata()[PARITY])
    assert stored == exported.verdict.as_dict()
    image = torch.randint(0, 256, (50, 40, 3), dtype=torch.uint8).numpy()
    (found,), (wanted,) = reslab.predict(exported.path, image), reslab.predict(model, image)
    assert [entry.name for entry in found.results] == [entry.name for entry in wanted.results]
