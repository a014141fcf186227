"""Open exported files as models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from reslab.deploy.backends import ExportedNet, run_by
from reslab.deploy.metadata import facts_in
from reslab.deploy.runtimes import OnnxRuntime, OpenVino
from reslab.deploy.torch_program import TorchProgram
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing

RUNTIMES: Mapping[str, type[OnnxRuntime | OpenVino | TorchProgram]] = {
    ".onnx": OnnxRuntime,
    ".xml": OpenVino,
    ".pt2": TorchProgram,
}
BACKENDS = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch.export"}


def is_exported(path: str | Path) -> bool:
    """Return whether a path is that of an exported file, by its suffix."""
    return Path(path).suffix in RUNTIMES


def open_exported(file: Path) -> Model:
    """Open an exported classifier as a model whose network is the file in its runtime.

    Its preprocessing changes nothing, as the file contains it; only crops, for a file that takes
    crops, are made before it. Raise ValueError if the file is missing or damaged, was not exported
    by reslab, or holds a detector, or if its runtime is not installed.
    """
    if not file.is_file():
        raise ValueError(f"no model at {file}; give a finished run folder or a model file")
    runtime = RUNTIMES[file.suffix](file)
    facts = facts_in(runtime.metadata(), file)
    preprocessing = facts["preprocessing"]
    takes_crops = preprocessing.takes == "crops"
    model = Model(
        net=torch.nn.Identity(),
        classes=tuple(facts["classes"]),
        preprocessing=Preprocessing(
            torch.zeros(3, 1, 1),
            torch.ones(3, 1, 1),
            resize=preprocessing.resize if takes_crops else None,
            size=preprocessing.size if takes_crops else None,
            interpolation=preprocessing.interpolation,
            as_stored=preprocessing.as_stored,
        ),
        recipe=facts["recipe"],
        metrics=[],
        ids=tuple(facts["ids"]),
        folded=True,
        own_net=digest_of(file),
        resizes=not takes_crops,
    )
    return run_by(model, ExportedNet(runtime), BACKENDS[file.suffix])


def digest_of(file: Path) -> str:
    """Return the SHA-256 of an exported file, with the weights that OpenVINO keeps beside it."""
    digest = hashlib.sha256()
    for part in (file, file.with_suffix(".bin")) if file.suffix == ".xml" else (file,):
        with open(part, "rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
