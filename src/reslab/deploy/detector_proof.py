"""The proof of a detector's export: the exported file must find what reslab finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from pydantic import JsonValue

from reslab.data.boxes.sets import Detections
from reslab.deploy.detection_match import NO_MATCHES, Matches, match_detections
from reslab.deploy.proof import SIZES, ProofImages
from reslab.deploy.proof_images import LEAST as IMAGES
from reslab.deploy.proof_images import seeded_image
from reslab.detection.exported import ExportedDetector
from reslab.detection.inference import Detector, detect_objects, prepare_for_inference
from reslab.detection.recipe import InferenceConfig

SCORES, PIXELS = 2e-3, 0.5  # largest differences between matched detections
# Rounding may decide between two boxes of nearly equal scores. No mistake changes so few detections
MATCHED = 0.99  # least share of detections that must have a match
LEAST = 12  # detections in a proof


@dataclass(frozen=True)
class DetectorVerdict:
    """What the proof of a detector's export found."""

    runtime: str
    images: int
    sizes: int
    source: str
    same_classes: bool  # whether the file names the classes as the detector does
    threshold: float  # detections with lower scores were not compared
    matches: Matches

    @property
    def passed(self) -> bool:
        matches = self.matches
        matched = matches.detections - matches.unmatched
        enough = matches.detections >= 2 * LEAST  # those of both programs are counted
        return self.same_classes and enough and matched >= MATCHED * matches.detections

    def __str__(self) -> str:
        found = self.matches
        first = f"{self.images} images ({self.source}), {self.sizes} sizes in {self.runtime}"
        if found.detections < 2 * LEAST:
            return (
                f"{first}: {found.detections // 2} detections, too few for a proof; name a folder "
                "of images that show the detector's classes with `check`"
            )
        missing = f"{found.unmatched} of {found.detections} without a match"
        verdict = (
            f"{first}: {found.detections} detections above {self.threshold:.2g}, "
            f"{missing if found.unmatched else 'all matched'}, scores within {found.scores:.1e}, "
            f"boxes within {found.pixels:.2f} pixels"
        )
        return verdict if self.same_classes else f"{verdict}, classes named differently"

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the verdict for JSON and for the file's metadata."""
        limits: dict[str, JsonValue] = {"scores": SCORES, "pixels": PIXELS, "matched": MATCHED}
        return asdict(self) | {"limits": limits, "passed": self.passed}


def detector_proof_images(
    detector: Detector, real: Sequence[np.ndarray], source: str
) -> ProofImages:
    """Return the images of a detector's proof: real ones, RGB uint8 [H, W, 3], and seeded ones.

    Seeded images show no objects, so there are only as many as are lacking in number or in sizes.
    """
    sizes = {image.shape for image in real}
    count = max(IMAGES - len(real), SIZES - len(sizes), 0)
    seeded = [seeded_image(number, detector.search.shorter) for number in range(count)]
    if not real:
        return ProofImages(seeded, "seeded")
    others = f", {count} seeded" if count else ""
    return ProofImages([*real, *seeded], f"{len(real)} from {source}{others}")


def prove_detector(
    detector: Detector, exported: ExportedDetector, runtime: str, images: ProofImages
) -> DetectorVerdict:
    """Compare an exported detector with the detector that it was made from, image by image.

    Detections above the detector's own threshold are compared, or those with the highest scores if
    there are only few above it. `detector` has the settings of the exported one.
    """
    ready = prepare_for_inference(detector)
    every = detector.search.with_changes({"threshold": 0.0})
    expected = [detect_objects(ready, image, every) for image in images.images]
    threshold = threshold_for(expected, detector.search)
    search = exported.search_with({"threshold": threshold})
    matches = NO_MATCHES
    for image, ours in zip(images.images, expected, strict=True):
        theirs = exported.detect(image, search)
        matches += match_detections(
            ours, theirs, scores=SCORES, pixels=PIXELS,
            above=max(threshold, lowest(ours, search), lowest(theirs, search)),
        )  # fmt: skip
    return DetectorVerdict(
        runtime=runtime,
        images=len(images.images),
        sizes=len({image.shape for image in images.images}),
        source=images.source,
        same_classes=(exported.classes, exported.ids) == (detector.classes, detector.ids),
        threshold=threshold,
        matches=matches,
    )


def threshold_for(expected: Sequence[Detections], search: InferenceConfig) -> float:
    """Return the threshold above which detections are compared: low enough for a proof."""
    scores = torch.cat([found.scores for found in expected]).sort(descending=True).values
    if len(scores) < LEAST:
        return 0.0
    # twice the tolerance below, so that these must have matches
    return min(search.threshold, max(float(scores[LEAST - 1]) - 2 * SCORES, 0.0))


def lowest(found: Detections, search: InferenceConfig) -> float:
    """Return the lowest score among detections if more may have been dropped, else 0."""
    return float(found.scores[-1]) if len(found) >= search.most else 0.0
