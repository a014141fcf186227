"""Model files for detectors, and a predictor that detects the objects in any image."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import overload

import numpy as np
import torch

import reslab
from reslab.data.boxes.sets import Detections
from reslab.data.decode import IMAGE_TYPES, BadImage, ImageInput, ScaledImage, load_scaled
from reslab.detection.config import DetectorConfig
from reslab.detection.detect_set import IMAGES_AHEAD, decode_ahead
from reslab.detection.inference import (
    AnyDetector,
    Detector,
    detect_objects,
)
from reslab.detection.network import FasterRCNN
from reslab.detection.recipe import InferenceConfig
from reslab.evaluation.fuse import InferenceCache
from reslab.models.model_facts import (
    build_without_weights,
    config_in,
    misfit,
    must_have_types,
    names_in,
    preprocessing_in,
)
from reslab.models.model_file import (
    model_file,
    read_facts,
    read_model_file,
    with_weights,
)
from reslab.runtime.files import TensorFile
from reslab.runtime.text import printable
from reslab.runtime.threads import usable_cores

REQUIRED = {"detector", "classes", "ids", "preprocessing", "search", "recipe", "metrics"}
SHOWN_SCORE = 0.5  # lowest probability shown to users; average precision needs lower ones, too


def detector_bytes(detector: Detector) -> bytes:
    """Encode a detector as a model file: a classifier's layout with a detector's configuration."""
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
    """Return whether a model file, or the one in a run folder, holds a detector."""
    return "detector" in read_facts(model_file(path))


def load_detector(path: str | Path) -> Detector:
    """Load a detector from a model file, or from the one in a run folder.

    Raise ValueError unless the file holds exactly the weights of a detector, and RuntimeError if
    any weight is infinite or NaN.
    """
    content = read_model_file(path)
    file, facts, tensors = content.path, content.facts, content.tensors
    if "config" in facts:
        raise ValueError(f"{path} is a classifier, not a detector; use `reslab predict`")
    content.must_have(REQUIRED)
    must_have_types(facts, {"recipe": dict, "metrics": list}, file)
    preprocessing = preprocessing_in(tensors, facts["preprocessing"], file)
    config = config_in(DetectorConfig, facts["detector"], file)
    if len(config.trunk.blocks) < 2:
        raise misfit(
            file, "the trunk has one stage: the last is for regions, the others for images"
        )
    search = config_in(InferenceConfig, facts["search"], file)
    classes, ids = names_in(facts, config.classes, file)
    if not ids:
        raise misfit(file, "ids is empty: a detector has one for each class")
    net = build_without_weights(
        sum(config.trunk.blocks), partial(FasterRCNN, config), tensors, file
    )
    return Detector(
        net=with_weights(net, tensors, file),
        classes=tuple(classes),
        ids=tuple(ids),
        preprocessing=preprocessing,
        search=search,
        recipe=facts["recipe"],
        metrics=facts["metrics"],
    )


@dataclass(frozen=True)
class Detection:
    """An object detected in an image: its class, its probability and its box."""

    name: str
    score: float  # 0 to 1
    box: tuple[float, float, float, float]  # x0 y0 x1 y1 in pixels of the image
    id: str  # the class in annotation files

    def __str__(self) -> str:
        corners = " ".join(f"{corner:.0f}" for corner in self.box)
        return f"{100 * self.score:5.1f} %  {printable(self.name)}  at {corners}"


@dataclass(frozen=True)
class DetectedImage:
    """A decoded image and the objects detected in it."""

    pixels: np.ndarray  # RGB uint8 [H, W, 3], upright; a very large image is reduced
    detections: Detections  # in `pixels`
    objects: list[Detection]  # the detections at full size with class names, best first


@dataclass(frozen=True)
class DetectorPredictor:
    """A detector that accepts images as paths, bytes, arrays or Pillow images."""

    detector: AnyDetector
    search: InferenceConfig
    threshold: float = SHOWN_SCORE  # lowest probability reported
    path: Path | None = None  # the model file or run folder that the detector was loaded from
    _cache: InferenceCache = field(
        default_factory=InferenceCache, init=False, repr=False, compare=False
    )

    def __repr__(self) -> str:
        return f"DetectorPredictor({str(self.path)!r}, {len(self.classes)} classes)"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.detector.classes

    def to(self, device: torch.device) -> "DetectorPredictor":
        return replace(self, detector=self.detector.to(device))

    @overload
    def detect(self, images: ImageInput) -> list[Detection]: ...
    @overload
    def detect(self, images: Sequence[ImageInput]) -> list[list[Detection]]: ...
    def detect(
        self, images: ImageInput | Sequence[ImageInput]
    ) -> list[Detection] | list[list[Detection]]:
        """Detect the objects in an image, or in each image of a list, the most probable first.

        An image is a path, the bytes of a file, a uint8 array, RGB [H, W, 3] or grey [H, W], or a
        Pillow image. Raise BadImage, naming the image and the reason, if an image cannot be
        decoded.
        """
        single = isinstance(images, IMAGE_TYPES)
        answers = []
        for answer in self.each([images] if single else images):
            if isinstance(answer, BadImage):
                raise answer
            answers.append(answer)
        return answers[0] if single else answers

    def each(self, images: Iterable[ImageInput]) -> Iterator[list[Detection] | BadImage]:
        """Detect objects one image at a time; yield the error in place of a bad image.

        Only a few images are in memory at once.
        """
        for image in self.each_image(images):
            yield image if isinstance(image, BadImage) else image.objects

    def each_image(self, images: Iterable[ImageInput]) -> Iterator[DetectedImage | BadImage]:
        """Detect objects like `each`, but also yield the decoded images, for drawing.

        Threads read and decode the images ahead of the detector.
        """
        for image in decode_ahead(load_scaled, images, min(usable_cores(), IMAGES_AHEAD)):
            yield image if isinstance(image, BadImage) else self._detect(image)

    def _detect(self, image: ScaledImage) -> DetectedImage:
        detector = self.detector
        if isinstance(detector, Detector):
            detector = replace(detector, net=self._cache.for_inference(detector.net))
        try:
            detections = detect_objects(detector, image.pixels, self.search)
        except RuntimeError as error:  # infinite or NaN
            place = f"{model_file(self.path)}: " if self.path else ""
            raise RuntimeError(f"{place}{error}") from None
        detections = detections.take(detections.scores >= self.threshold)
        classes, ids = self.detector.classes, self.detector.ids
        full = detections.scaled(*image.ratio)
        rows = zip(
            detections.labels.tolist(), detections.scores.tolist(), full.boxes.tolist(),
            strict=True,
        )  # fmt: skip
        objects = [
            Detection(classes[label], score, (x0, y0, x1, y1), ids[label])
            for label, score, (x0, y0, x1, y1) in rows
        ]
        return DetectedImage(image.pixels, detections, objects)


def detector_predictor(
    detector: AnyDetector,
    path: Path | None = None,
    *,
    threshold: float = SHOWN_SCORE,
    refine: bool | None = None,
    scales: Sequence[int] | None = None,
) -> DetectorPredictor:
    """Return a predictor that detects objects in images with `detector`, loaded from `path`.

    `threshold` is the lowest probability reported. `refine` and `scales` select the box refinement
    and the multi-scale testing of App. B; None keeps the setting used for evaluation during
    training. Raise ValueError for an invalid value.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold {threshold} is not a probability between 0 and 1")
    # keep less probable boxes, too: they suppress no higher-scoring box, but vote in refinement
    lowest = min(threshold, detector.search.threshold)
    options = {"threshold": lowest, "refine": refine, "scales": scales}
    changes = {key: value for key, value in options.items() if value is not None}
    search = detector.search_with(changes)
    return DetectorPredictor(detector, search, threshold, path)
