"""Open exported files as models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from reslab.data.boxes.sets import Detections
from reslab.deploy.backends import ExportedNet, run_by
from reslab.deploy.detector import BOXES, IMAGE, LABELS, SCORES, THRESHOLD
from reslab.deploy.metadata import DETECT, TASK, detector_facts_in, facts_in
from reslab.deploy.runtimes import OnnxRuntime, OpenVino
from reslab.deploy.torch_program import TorchProgram
from reslab.detection.exported import ExportedDetector
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Opened = OnnxRuntime | OpenVino | TorchProgram
RUNTIMES: Mapping[str, type[Opened]] = {
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
    runtime = open_runtime(file)
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


def holds_exported_detector(file: Path) -> bool:
    """Return whether an exported file is a detector; only ONNX files can be."""
    return file.suffix == ".onnx" and open_runtime(file).metadata().get(TASK) == DETECT


def open_exported_detector(file: Path) -> ExportedDetector:
    """Open an exported detector; raise ValueError as `open_exported` does, or for a classifier."""
    runtime = open_runtime(file)
    facts = detector_facts_in(runtime.metadata(), file)
    if not isinstance(runtime, OnnxRuntime):
        raise ValueError(f"{file}: only an .onnx file can hold an exported detector")
    return ExportedDetector(
        partial(compute_detections, runtime.session),
        classes=tuple(facts["classes"]),
        ids=tuple(facts["ids"]),
        search=facts["search"],
        recipe=facts["recipe"],
    )


def compute_detections(
    session: InferenceSession, pixels: np.ndarray, threshold: float
) -> Detections:
    """Return the detections in an image with scores above `threshold`, best first."""
    inputs = {IMAGE: np.ascontiguousarray(pixels), THRESHOLD: np.array([threshold], np.float32)}
    return Detections(
        *(
            torch.from_numpy(np.array(output))
            for output in session.run([BOXES, SCORES, LABELS], inputs)
        )
    )


def open_runtime(file: Path) -> Opened:
    """Open an exported file in the runtime of its suffix; raise ValueError if it is missing."""
    if not file.is_file():
        raise ValueError(f"no model at {file}; give a finished run folder or a model file")
    return RUNTIMES[file.suffix](file)


def digest_of(file: Path) -> str:
    """Return the SHA-256 of an exported file, with the weights that OpenVINO keeps beside it."""
    digest = hashlib.sha256()
    for part in (file, file.with_suffix(".bin")) if file.suffix == ".xml" else (file,):
        with open(part, "rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
