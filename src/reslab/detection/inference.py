"""An image to detections: proposals, their classes and places, and what App. B adds to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from reslab.data.boxes.sets import Detections
from reslab.detection.box_ops import (
    REGION_STDS,
    box_voting,
    clip,
    decode_boxes,
    large_enough,
    nms_by_class,
    resize_image,
)
from reslab.detection.model import Detector
from reslab.detection.recipe import InferenceConfig


@dataclass(frozen=True)
class FeatureMap:
    """What a detector computes of a whole image at one size."""

    features: Tensor  # [1, C, h, w]
    width: int  # of the image as it is shown
    height: int
    ratio: Tensor  # [4]: pixels as shown for a pixel of the image as it came, x y x y


class ImageFeatures:
    """One detector's look at one image. Boxes are in pixels of the image as it came."""

    def __init__(self, detector: Detector, pixels: np.ndarray, search: InferenceConfig) -> None:
        self.detector, self.net, self.search = detector, detector.net, search
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]
        self.maps: dict[int, FeatureMap] = {}  # by the shorter side as shown

    def map_at(self, shorter: int) -> FeatureMap:
        """The whole image's, computed when it is first wanted."""
        if shorter not in self.maps:
            self.maps[shorter] = self._map(shorter)
        return self.maps[shorter]

    def _map(self, shorter: int) -> FeatureMap:
        longest = self.search.longest * shorter / self.search.shorter
        shown = resize_image(self.pixels, shorter, round(longest))
        height, width = shown.shape[:2]
        ratio = torch.tensor([width / self.width, height / self.height] * 2)
        image = self.detector.prepared(shown)
        return FeatureMap(self.net.features(image), width, height, ratio.to(image.device))

    def proposals(self) -> Tensor:
        """Where there may be an object, best first, [R, 4]."""
        seen = self.map_at(self.search.shorter)
        proposed = self.net.proposals(seen.features)
        must_be_finite(proposed.logits, proposed.deltas)
        boxes = proposed.proposals(
            seen.width, seen.height, before=self.search.before, after=self.search.proposals,
            smallest=self.search.smallest * float(seen.ratio[0]),
        )  # fmt: skip
        return boxes / seen.ratio

    def classify_regions(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities, background first, [R, classes + 1]; boxes by class, [R, classes, 4]."""
        features = self.region_features(self.net.append_whole_image(boxes, self.width, self.height))
        scores, deltas = self.net.classify_regions(features[: len(boxes)], features[len(boxes) :])
        must_be_finite(scores, deltas)
        places = decode_boxes(boxes[:, None].expand_as(deltas), deltas, REGION_STDS)
        return scores.softmax(1), clip(places, self.width, self.height)

    def region_features(self, boxes: Tensor) -> Tensor:
        """[R, 4] -> [R, c]"""
        if not self.search.scales:
            return self.net.region_features(self.pooled(boxes, self.search.shorter))
        scales = self.search.scales
        first = first_of_two(boxes, self.sides(), self.net.config.pooled * self.net.config.stride)
        found: Tensor | None = None
        for index in first.unique().tolist():
            chosen = first == index
            pair = [self.pooled(boxes[chosen], scales[index + turn]) for turn in (0, 1)]
            features = self.net.region_features(torch.maximum(*pair))  # "merged by maxout"
            found = features.new_empty(len(boxes), features.shape[1]) if found is None else found
            found[chosen] = features
        assert found is not None
        return found

    def pooled(self, boxes: Tensor, shorter: int) -> Tensor:
        seen = self.map_at(shorter)
        return self.net.pool(seen.features, boxes * seen.ratio)

    def sides(self) -> Tensor:
        """How much larger than it came the image is at each scale, [scales]."""
        return torch.stack([self.map_at(shorter).ratio[0] for shorter in self.search.scales])


def must_be_finite(*outputs: Tensor) -> None:
    """RuntimeError for a network that would find nothing, or would find it nowhere."""
    if not all(output.isfinite().all() for output in outputs):
        raise RuntimeError("the network's outputs are not numbers: its weights are of no use")


def first_of_two(boxes: Tensor, ratios: Tensor, side: float) -> Tensor:
    """The lower of the two neighbouring scales at which each box is closest to side x side pixels.

    [R, 4], [S] -> int64 [R], from 0 to S - 2. The side is the one that the net was trained with:
    that of the regions after pooling, 14 cells of 16 pixels.
    """
    roots = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3).prod(1).sqrt()
    away = (roots[:, None] * ratios / side).log().abs()  # [R, S]
    return (away[:, :-1] + away[:, 1:]).argmin(1)


@torch.no_grad()
def detect_with_ensemble(
    detectors: Sequence[Detector], pixels: np.ndarray, search: InferenceConfig
) -> Detections:
    """What an ensemble finds in an image, RGB bytes [H, W, 3]: all their proposals, each judged
    by all of them, the means of their probabilities and places (App. B)."""
    sights = [ImageFeatures(detector, pixels, search) for detector in detectors]

    def judge(boxes: Tensor) -> tuple[Tensor, Tensor]:
        judged = [sight.classify_regions(boxes) for sight in sights]
        probabilities, places = (torch.stack(parts).mean(0) for parts in zip(*judged, strict=True))
        return probabilities, places

    boxes = torch.cat([sight.proposals() for sight in sights])
    if not len(boxes):
        return Detections(boxes.cpu(), boxes.new_empty(0).cpu(), torch.empty(0, dtype=torch.int64))
    probabilities, places = judge(boxes)
    if search.refine:
        best = probabilities[:, 1:].argmax(1)
        moved = places[torch.arange(len(best), device=best.device), best]
        moved = moved[large_enough(moved, 1)]
        again = judge(moved) if len(moved) else (probabilities[:0], places[:0])
        probabilities = torch.cat([probabilities, again[0]])
        places = torch.cat([places, again[1]])
    found = postprocess(probabilities, places, search)
    # a mean of boxes may lie past the border by a rounding
    return replace(found, boxes=clip(found.boxes, sights[0].width, sights[0].height))


def detect_objects(detector: Detector, pixels: np.ndarray, search: InferenceConfig) -> Detections:
    """What one detector finds in an image, RGB bytes [H, W, 3]; best first."""
    return detect_with_ensemble([detector], pixels, search)


def postprocess(probabilities: Tensor, places: Tensor, search: InferenceConfig) -> Detections:
    """Of what every region says, the detections: [R, classes + 1], [R, classes, 4]."""
    region, label = (probabilities[:, 1:] > search.threshold).nonzero().unbind(1)
    scores, boxes = probabilities[region, label + 1], places[region, label]
    kept = nms_by_class(boxes, scores, label, search.overlap, search.most)
    found = Detections(boxes[kept], scores[kept], label[kept])
    if search.refine:
        found = vote_by_class(found, Detections(boxes, scores, label))
    return Detections(found.boxes.cpu(), found.scores.cpu(), found.labels.cpu())


def vote_by_class(kept: Detections, all_found: Detections) -> Detections:
    """Each box moved to the mean of those of its class that say the same (App. B)."""
    boxes = kept.boxes.clone()
    for label in kept.labels.unique():
        mine, same = kept.labels == label, all_found.labels == label
        boxes[mine] = box_voting(kept.boxes[mine], all_found.boxes[same], all_found.scores[same])
    return Detections(boxes, kept.scores, kept.labels)
