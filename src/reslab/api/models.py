"""Models given by the user: a path, the name of a published network, or a loaded model."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from reslab.deploy.backends import runtime_in_bf16, with_backend
from reslab.deploy.opening import (
    holds_exported_detector,
    is_exported,
    open_exported,
    open_exported_detector,
)
from reslab.detection.inference import AnyDetector, Detector
from reslab.detection.predict import DetectorPredictor, detector_predictor, is_detector
from reslab.detection.predict import load_detector as load_own_detector
from reslab.errors import unknown_name
from reslab.evaluation.predict import Predictor
from reslab.models.batchnorm import in_bf16
from reslab.models.model_file import Model, load_model, save_model
from reslab.models.preprocessing import Preprocessing
from reslab.pretrained.locate import located

Classifier = str | Path | Predictor
DetectorModel = str | Path | DetectorPredictor
AnyModel = str | Path | Predictor | DetectorPredictor
LoadedModel = tuple[Path, Model]
LoadedDetector = tuple[Path, AnyDetector]
PRECISIONS = ("fp32", "bf16")
IN_MEMORY = Path("(in memory)")  # in messages, for a model that was not loaded from a file


def load(path: str | Path, *, net: nn.Module | None = None, backend: str = "auto") -> Predictor:
    """Load a classifier from its run folder, model file or exported file, to classify images.

    `path` may be one of the names that `weights` lists, such as "resnet50"; weights that are not on
    this machine are downloaded.

    The result is called with uint8 images [B, 3, H, W] for logits [B, classes]; its `predict` takes
    files, bytes, arrays or Pillow images. A file that holds a network of your own needs `net`, one
    of the same layout, whose weights are replaced. `backend` is what computes the network:
    "torch", "onnxruntime" or "openvino"; "auto" is torch, except for exported files, which run in
    their own runtime. Raise ValueError if there is no such model, if its file is damaged, if `net`
    does not fit, or if the backend is not installed or cannot run the model.
    """
    path = located(path)
    return Predictor(read_model(path, backend, net), path)


def read_model(path: Path, backend: str = "auto", net: nn.Module | None = None) -> Model:
    """Read a classifier from its run folder, model file or exported file, as `load` does."""
    if not is_exported(path):
        return with_backend(load_model(path, net), backend)
    if net is not None:
        raise ValueError(f"{path} was exported with its network: load it without net")
    return with_backend(open_exported(path), backend)


def save(
    net: nn.Module,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    path: str | Path,
    ids: Sequence[str] = (),
) -> None:
    """Write a model file for a network that was trained elsewhere; `load` and the command read it.

    `classes` are the names of its outputs and `ids`, where they differ, the folder names of the
    classes (wnids for ImageNet). `preprocessing` is applied to images [B, 3, H, W] before the
    network: `Preprocessing.of(mean, std, size=224)`. A network that `build_resnet` builds from its
    configuration opens on its own; any other must be passed to `load` again. Raise ValueError if
    the numbers of names and outputs differ.
    """
    save_model(net, classes, preprocessing, path, ids)


def load_detector(
    path: str | Path,
    *,
    threshold: float = 0.5,
    refine: bool | None = None,
    scales: Sequence[int] | None = None,
) -> DetectorPredictor:
    """Load a detector from its run folder, model file or exported file, to detect objects.

    `threshold` is the lowest probability reported. `refine` and `scales`, shorter sides in pixels,
    are the box refinement and the multi-scale testing of App. B; None keeps the setting used for
    evaluation during training; an exported file has neither. Raise ValueError for an impossible
    value, or if there is no such detector or its file is damaged.
    """
    path = located(path)
    return detector_predictor(
        read_detector(path), path, threshold=threshold, refine=refine, scales=scales
    )


def read_detector(path: Path) -> AnyDetector:
    """Read a detector from its run folder, model file or exported file."""
    return open_exported_detector(path) if is_exported(path) else load_own_detector(path)


def path_of(model: AnyModel) -> Path:
    """Return the path of a model that was given by a path or a name, or is loaded already."""
    if isinstance(model, str | Path):
        return located(model)
    return model.path or IN_MEMORY


def as_list(models: AnyModel | Sequence[AnyModel]) -> list[AnyModel]:
    """Return one model, or several, as a list; raise ValueError if there is none."""
    if isinstance(models, AnyModel):
        return [models]
    if not models:
        raise ValueError("no model given: name a run folder, a model file or published weights")
    return list(models)


def holds_detector(model: AnyModel) -> bool:
    """Return whether a model is a detector."""
    if isinstance(model, str | Path):
        path = located(model)
        return holds_exported_detector(path) if is_exported(path) else is_detector(path)
    return isinstance(model, DetectorPredictor)


def open_classifier(model: AnyModel, device: torch.device, backend: str = "auto") -> LoadedModel:
    """Return a classifier on a device, and its path; a loaded one stays where it is.

    `backend` is as in `load`. Raise ValueError if the model is a detector, or if the backend cannot
    run it.
    """
    if isinstance(model, DetectorPredictor):
        raise ValueError(f"{path_of(model)} is a detector: use detect")
    if isinstance(model, str | Path):
        path = located(model)
        return path, read_model(path, backend).to(device)
    loaded = with_backend(model.model, backend)
    if loaded.preprocessing.std.device != device:  # moving a network changes it in place
        loaded = replace(loaded, net=deepcopy(loaded.net)).to(device)
    return path_of(model), loaded


def set_precision(model: Model, precision: str) -> Model:
    """Return a model that computes in fp32 (unchanged) or in bf16."""
    if precision not in PRECISIONS:
        raise ValueError(unknown_name("precision", precision, PRECISIONS))
    if precision == "fp32":
        return model
    return in_bf16(model) if model.backend == "torch" else runtime_in_bf16(model)


def open_detector(model: AnyModel, device: torch.device) -> LoadedDetector:
    """Return a detector on a device, and its path; a loaded one stays where it is.

    Raise ValueError if the model is a classifier.
    """
    if isinstance(model, Predictor):
        raise ValueError(f"{path_of(model)} is a classifier, not a detector: use predict")
    if isinstance(model, str | Path):
        path = located(model)
        return path, read_detector(path).to(device)
    detector = replace(model.detector, search=model.search)
    if isinstance(detector, Detector) and detector.preprocessing.std.device != device:
        detector = replace(detector, net=deepcopy(detector.net)).to(device)
    return path_of(model), detector
