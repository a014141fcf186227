"""Images to the objects in them, by what the model file says."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import torch

from reslab.data.boxes.sets import Detections
from reslab.data.decode import BadImage, ImageInput, load_image
from reslab.detection.inference import detect_objects
from reslab.detection.model import Detector, load_detector, prepare_for_inference
from reslab.detection.recipe import InferenceConfig
from reslab.runtime.threads import map_in_order, usable_cores

SHOWN_SCORE = (
    0.5  # the probability from which people are shown a box; measuring wants the others too
)
IMAGES_AHEAD = 8  # images decoded meanwhile: a detector sees them whole, so they fill the memory


@dataclass(frozen=True)
class Detection:
    """An object in an image: what it is, how probable that is, and where."""

    name: str
    score: float  # 0 to 1
    box: tuple[float, float, float, float]  # x0 y0 x1 y1 in pixels of the image
    id: str  # what annotations call the class

    def __str__(self) -> str:
        corners = " ".join(f"{corner:.0f}" for corner in self.box)
        return f"{100 * self.score:5.1f} %  {self.name}  at {corners}"


@dataclass(frozen=True)
class DetectedImage:
    """An image as the detector saw it, and what it found in it."""

    pixels: np.ndarray  # RGB uint8 [H, W, 3], upright
    detections: Detections
    objects: list[Detection]  # the same for people, best first


@dataclass(frozen=True)
class DetectorPredictor:
    """A detector that takes images as people have them: files, bytes, arrays."""

    detector: Detector
    search: InferenceConfig
    threshold: float = SHOWN_SCORE  # the least probability that is told

    @property
    def classes(self) -> tuple[str, ...]:
        """What the detector can find."""
        return self.detector.classes

    def to(self, device: torch.device) -> "DetectorPredictor":
        """The same on a device."""
        return replace(self, detector=self.detector.to(device))

    @overload
    def detect(self, images: ImageInput) -> list[Detection]: ...
    @overload
    def detect(self, images: Sequence[ImageInput]) -> list[list[Detection]]: ...
    def detect(
        self, images: ImageInput | Sequence[ImageInput]
    ) -> list[Detection] | list[list[Detection]]:
        """The objects in an image, the most probable first; of a list, a list for each.

        An image is a path, the bytes of a file, RGB uint8 [H, W, 3], or Pillow's. BadImage
        says which one is bad, and why.
        """
        alone = isinstance(images, ImageInput)
        found = []
        for answer in self.each([images] if alone else images):
            if isinstance(answer, BadImage):
                raise answer
            found.append(answer)
        return found[0] if alone else found

    def each(self, images: Iterable[ImageInput]) -> Iterator[list[Detection] | BadImage]:
        """As `detect`, answer by answer, in bounded memory; a bad image is an answer."""
        for answer in self.see(images):
            yield answer if isinstance(answer, BadImage) else answer.objects

    def see(self, images: Iterable[ImageInput]) -> Iterator[DetectedImage | BadImage]:
        """As `each`, with the images themselves, to draw on.

        They are read and decoded by threads, ahead of the detector.
        """

        def decoded(image: ImageInput) -> np.ndarray | BadImage:
            try:
                return load_image(image)
            except BadImage as bad:
                return bad

        for pixels in map_in_order(
            decoded, images, min(usable_cores(), IMAGES_AHEAD), IMAGES_AHEAD
        ):
            yield pixels if isinstance(pixels, BadImage) else self._seen(pixels)

    def _seen(self, pixels: np.ndarray) -> DetectedImage:
        found = detect_objects(self.detector, pixels, self.search)
        found = found.take(found.scores >= self.threshold)
        columns = (found.labels.tolist(), found.scores.tolist(), found.boxes.tolist())
        objects = [
            Detection(
                self.detector.classes[label], score, (x0, y0, x1, y1), self.detector.ids[label]
            )
            for label, score, (x0, y0, x1, y1) in zip(*columns, strict=True)
        ]
        return DetectedImage(pixels, found, objects)


def load_detector_predictor(
    path: str | Path,
    *,
    threshold: float = SHOWN_SCORE,
    refine: bool | None = None,
    scales: Sequence[int] | None = None,
) -> DetectorPredictor:
    """A detector's file, or the one in a run folder, ready to find objects in images.

    `threshold` is the least probability that is told. `refine` and `scales` are App. B's box
    refinement and multi-scale testing; None is as the detector was tested when it was trained.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold {threshold}: a probability lies between 0 and 1")
    detector = load_detector(path)
    # the search hears of less probable boxes too: they suppress nothing better, but they vote
    least = min(threshold, detector.search.threshold)
    asked = {"threshold": least, "refine": refine, "scales": scales}
    changes = {key: value for key, value in asked.items() if value is not None}
    return DetectorPredictor(
        prepare_for_inference(detector), detector.search.with_changes(changes), threshold
    )
