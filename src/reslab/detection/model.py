"""The model file of a detector: one safetensors file, as a classifier's, with its own config."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import reslab
from reslab.detection.network import DetectorConfig, FasterRCNN, detector_channels_last
from reslab.detection.recipe import InferenceConfig
from reslab.models.batchnorm import folded
from reslab.models.model_file import (
    load_weights_strictly,
    model_file,
    not_a_model_file,
    read_facts,
    read_model_file,
)
from reslab.models.preprocessing import Preprocessing, taken_from
from reslab.runtime.files import TensorFile


@dataclass(frozen=True)
class Detector:
    """A trained detector with all that its use needs."""

    net: FasterRCNN
    classes: tuple[str, ...]  # names for people, without the background
    ids: tuple[str, ...]  # of the classes in files: COCO's category ids, VOC's names
    preprocessing: Preprocessing
    search: InferenceConfig  # as it was tested when it was trained
    recipe: dict[str, Any]
    metrics: list[dict[str, Any]]

    def to(self, device: torch.device) -> "Detector":
        """The same detector on a device; the network itself moves."""
        return replace(self, net=self.net.to(device), preprocessing=self.preprocessing.to(device))

    def prepared(self, pixels: np.ndarray) -> Tensor:
        """RGB bytes [H, W, 3] -> what the network sees, [1, 3, H, W]"""
        image = torch.from_numpy(pixels).to(self.preprocessing.std.device)
        return self.preprocessing(image.permute(2, 0, 1)[None])


def prepare_for_inference(detector: Detector) -> Detector:
    """The same made fast to use: batch norm inside the convolutions."""
    return replace(detector, net=detector_channels_last(folded(detector.net)))


def detector_bytes(detector: Detector) -> bytes:
    """The model file as bytes."""
    facts = {
        "reslab": reslab.__version__,
        "detector": detector.net.config.model_dump(mode="json"),
        "classes": detector.classes,
        "ids": detector.ids,
        "preprocessing": detector.preprocessing.facts(),
        "search": detector.search.model_dump(mode="json"),
        "recipe": detector.recipe,
        "metrics": detector.metrics,
    }
    tensors = detector.net.state_dict() | detector.preprocessing.tensors()
    return TensorFile(tensors, facts).to_bytes()


def is_detector(path: str | Path) -> bool:
    """Whether a model file, or the one in a run folder, holds a detector."""
    return "detector" in read_facts(model_file(path))


def load_detector(path: str | Path) -> Detector:
    """A model file, or the one in a run folder; strict: every weight is there and no other."""
    file, facts, tensors = read_model_file(path)
    if "config" in facts:
        raise ValueError(f"{path} holds no detector; `reslab predict` names images by classes")
    if "detector" not in facts:
        raise not_a_model_file(file)
    preprocessing = taken_from(tensors, facts["preprocessing"])
    net = FasterRCNN(DetectorConfig.model_validate(facts["detector"]))
    load_weights_strictly(net, tensors, file)
    return Detector(
        net=detector_channels_last(net.eval()).requires_grad_(False),
        classes=tuple(facts["classes"]),
        ids=tuple(facts["ids"]),
        preprocessing=preprocessing,
        search=InferenceConfig.model_validate(facts["search"]),
        recipe=facts["recipe"],
        metrics=facts["metrics"],
    )
