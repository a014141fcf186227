"""A detector in an exported file, which computes everything from an image to detections."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reslab.data.boxes.sets import Detections
from reslab.detection.recipe import InferenceConfig

# detections in an image, RGB uint8 [H, W, 3], with scores above a threshold, best first
Compute = Callable[[np.ndarray, float], Detections]
FREE = ("threshold", "most")  # settings that are not part of the file's graph


@dataclass(frozen=True)
class ExportedDetector:
    """A detector in an exported file, whose settings were fixed when it was exported."""

    compute: Compute
    classes: tuple[str, ...]  # display names, without the background
    ids: tuple[str, ...]  # class ids in annotation files
    search: InferenceConfig  # with which it was exported
    recipe: dict[str, Any]

    def to(self, device: torch.device) -> "ExportedDetector":
        """Return the detector itself: its runtime computes on the CPU."""
        return self

    def search_with(self, changes: Mapping[str, object]) -> InferenceConfig:
        """Return the inference settings with changes, of which the file supports only a few.

        Raise ValueError for a bad value, and for a setting that is fixed in the file.
        """
        changed = self.search.with_changes(changes)
        fixed = changed.model_dump(exclude=set(FREE))
        for key, value in self.search.model_dump(exclude=set(FREE)).items():
            if fixed[key] != value:
                raise ValueError(
                    f"{key}={fixed[key]}: an exported detector keeps the settings with which it "
                    f"was exported, here {key}={value}; use the model file it was exported from"
                )
        if changed.most > self.search.most:
            raise ValueError(
                f"most={changed.most}: the file returns at most {self.search.most} detections"
            )
        return changed

    def detect(self, pixels: np.ndarray, search: InferenceConfig) -> Detections:
        """Return the detections in an image, RGB uint8 [H, W, 3], best first.

        `search` comes from `search_with`. Raise RuntimeError if a score or a box is infinite or
        NaN.
        """
        detections = self.compute(pixels, search.threshold)
        if not (detections.boxes.isfinite().all() and detections.scores.isfinite().all()):
            raise RuntimeError("the file's outputs are infinite or NaN: its weights are unusable")
        return detections.take(torch.arange(min(len(detections), search.most)))
