"""Export a detector to ONNX, with a proof on images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from reslab.api.export_images import first_decodable, images_in_folder
from reslab.api.models import AnyModel, open_detector
from reslab.api.test_sets import open_own_annotated_images
from reslab.data.boxes.sets import DetectionSet
from reslab.deploy.detector_file import exportable, try_detector, write_detector
from reslab.deploy.detector_proof import DetectorVerdict, detector_proof_images
from reslab.deploy.proof import ProofImages
from reslab.deploy.proof_images import LEAST
from reslab.detection.inference import Detector
from reslab.runtime.events import Callback, note


def export_detector(
    model: AnyModel, to: str, out: Path, check: Path | None, on_event: Callback
) -> tuple[DetectorVerdict, int]:
    """Write a detector as an ONNX file; return the verdict of its proof and the file's size.

    Raise ValueError for another target than "onnx" and for an exported file, and RuntimeError if
    the file fails its proof.
    """
    path, detector = open_detector(model, torch.device("cpu"))
    if to != "onnx":
        raise ValueError(f"{path} is a detector, which exports to onnx only, not to {to}")
    if not isinstance(detector, Detector):
        raise ValueError(f"{path} is an exported file: export the model that it was made from")
    plain = exportable(detector)
    if plain.search != detector.search:
        on_event(note("the file detects without box refinement and multi-scale testing"))
    images = detector_images(plain, path, check)
    graph, verdict = try_detector(plain, images)
    return verdict, write_detector(plain, graph, out, verdict)


def detector_images(detector: Detector, path: Path, check: Path | None) -> ProofImages:
    """Return the images of a detector's proof, with seeded ones if there are too few real ones.

    Real images come from the folder `check`, by default from the detector's own test set if it is
    on this machine. `path` is where the detector was loaded from. Raise ValueError if no image in
    `check` can be decoded.
    """
    real: Sequence[np.ndarray] = []
    source = ""
    if check is not None:
        real, source = images_in_folder(check, LEAST), str(check)
    elif (images := own_annotated_images(detector, path)) is not None:
        real, source = first_decodable(images.image, len(images), LEAST), images.name
    return detector_proof_images(detector, real, source)


def own_annotated_images(detector: Detector, path: Path) -> DetectionSet | None:
    """Open the set that a detector was evaluated on during training; None if it is not at hand."""
    try:
        return open_own_annotated_images(path, detector)[0]
    except (ValueError, OSError):
        return None
