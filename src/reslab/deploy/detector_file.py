"""Exports of detectors to ONNX, each with its proof."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reslab.deploy.detector import detector_graph
from reslab.deploy.detector_proof import DetectorVerdict, prove_detector
from reslab.deploy.export import write_all
from reslab.deploy.metadata import PARITY, detector_metadata
from reslab.deploy.onnx_file import SUFFIX, onnx_bytes
from reslab.deploy.opening import open_exported_detector
from reslab.deploy.packages import must_have
from reslab.deploy.proof import ProofImages
from reslab.detection.inference import Detector
from reslab.runtime.files import to_json

if TYPE_CHECKING:
    from onnx import ModelProto


def exportable(detector: Detector) -> Detector:
    """Return a detector with the settings of its export: no box refinement, a single scale."""
    return replace(detector, search=detector.search.with_changes({"refine": False, "scales": ()}))


def try_detector(detector: Detector, images: ProofImages) -> tuple[ModelProto, DetectorVerdict]:
    """Return the graph of a detector and the verdict of its proof, in ONNX Runtime."""
    must_have("onnx", "onnxruntime")
    import onnxruntime

    graph = detector_graph(detector)
    with tempfile.TemporaryDirectory(prefix="reslab-export-") as folder:
        file = Path(folder) / f"model{SUFFIX}"
        file.write_bytes(onnx_bytes(graph, detector_metadata(detector)))
        exported = open_exported_detector(file)
    runtime = f"onnxruntime {onnxruntime.__version__}"
    return graph, prove_detector(detector, exported, runtime, images)


def write_detector(
    detector: Detector, graph: ModelProto, out: Path, verdict: DetectorVerdict
) -> int:
    """Write a proven graph with its verdict in the metadata; return the size of the file.

    Raise RuntimeError, and write nothing, if the verdict is that the graph failed.
    """
    if not verdict.passed:
        raise RuntimeError(f"{out} was not written: {verdict}")
    metadata = detector_metadata(detector) | {PARITY: to_json(verdict.as_dict())}
    content = onnx_bytes(graph, metadata)
    write_all({out: content})
    return len(content)
