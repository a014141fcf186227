"""Detect objects with a trained detector in an image or in a set of images.

Proposals are classified and their boxes regressed; box refinement, multi-scale testing and
ensembles follow App. B. Boxes are xyxy in pixels of the original image unless stated otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from reslab.detection.exported import ExportedDetector
from reslab.detection.network import FasterRCNN
from reslab.detection.recipe import InferenceConfig
from reslab.evaluation.fuse import net_for_inference
from reslab.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Detector:
    """A trained detector with everything that inference needs."""

    net: FasterRCNN
    classes: tuple[str, ...]  # display names, without the background
    ids: tuple[str, ...]  # class ids in annotation files: COCO's category ids, VOC's names
    preprocessing: Preprocessing
    search: InferenceConfig  # the settings used for evaluation during training
    recipe: dict[str, Any]
    metrics: list[dict[str, Any]]

    def to(self, device: torch.device) -> "Detector":
        """Return the detector on a device; the network is moved in place."""
        return replace(self, net=self.net.to(device), preprocessing=self.preprocessing.to(device))

    def search_with(self, changes: Mapping[str, object]) -> InferenceConfig:
        """Return the detector's inference settings with changes; ValueError for a bad value."""
        return self.search.with_changes(changes)

    def preprocess(self, pixels: np.ndarray) -> Tensor:
        """Compute the network's input, RGB uint8 [H, W, 3] -> [1, 3, H, W]."""
        image = torch.from_numpy(pixels).to(self.preprocessing.std.device)
        return self.preprocessing(image.permute(2, 0, 1)[None])


AnyDetector = Detector | ExportedDetector


def prepare_for_inference(detector: Detector) -> Detector:
    """Return the detector with a faster version of its network, for inference only."""
    return replace(detector, net=net_for_inference(detector.net))


@dataclass(frozen=True)
class FeatureMap:
    """The features of a whole image at one size."""

    features: Tensor  # [1, C, h, w]
    width: int  # of the resized image
    height: int
    ratio: Tensor  # [4], x y x y: pixels of the resized image per pixel of the original


class ImageFeatures:
    """One detector's features for one image; feature maps are computed when first needed."""

    def __init__(self, detector: Detector, pixels: np.ndarray, search: InferenceConfig) -> None:
        self.detector, self.net, self.search = detector, detector.net, search
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]
        self.maps: dict[int, FeatureMap] = {}  # by the shorter side of the resized image

    def map_at(self, shorter: int) -> FeatureMap:
        """Return the feature map of the image resized to a shorter side of `shorter` pixels."""
        if shorter not in self.maps:
            self.maps[shorter] = self._compute_map(shorter)
        return self.maps[shorter]

    def _compute_map(self, shorter: int) -> FeatureMap:
        longest = self.search.longest * shorter / self.search.shorter
        resized = resize_image(self.pixels, shorter, round(longest))
        height, width = resized.shape[:2]
        ratio = torch.tensor([width / self.width, height / self.height] * 2)
        image = self.detector.preprocess(resized)
        return FeatureMap(self.net.features(image), width, height, ratio.to(image.device))

    def proposals(self) -> Tensor:
        """Propose regions that may contain an object, best first, [R, 4]."""
        image_map = self.map_at(self.search.shorter)
        predictions = self.net.proposals(image_map.features)
        must_be_finite(predictions.logits, predictions.deltas)
        boxes = predictions.proposals(
            image_map.width, image_map.height,
            before=self.search.before, after=self.search.proposals,
            smallest=self.search.smallest * float(image_map.ratio[0]),
        )  # fmt: skip
        return boxes / image_map.ratio

    def classify_regions(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Compute class probabilities, background first, and the regressed box for each class.

        [R, 4] -> [R, classes + 1], [R, classes, 4]
        """
        regions = self.net.append_whole_image(boxes, self.width, self.height)
        features = self.region_features(regions)
        scores, deltas = self.net.classify_regions(features[: len(boxes)], features[len(boxes) :])
        must_be_finite(scores, deltas)
        regressed = decode_boxes(boxes[:, None].expand_as(deltas), deltas, REGION_STDS)
        return scores.softmax(1), clip(regressed, self.width, self.height)

    def region_features(self, boxes: Tensor) -> Tensor:
        """Compute the features of regions, at one scale or merged over two; [R, 4] -> [R, c]."""
        scales = self.search.scales
        if not scales:
            return self.net.region_features(self.pool(boxes, self.search.shorter))
        ratios = torch.stack([self.map_at(shorter).ratio[0] for shorter in scales])
        first = lower_scale(boxes, ratios, self.net.config.pooled * self.net.config.stride)
        rows, features = [], []
        for scale in first.unique().tolist():
            rows.append((first == scale).nonzero()[:, 0])
            pair = [self.pool(boxes[rows[-1]], scales[at]) for at in (scale, scale + 1)]
            # "merged by maxout" (App. B)
            features.append(self.net.region_features(torch.maximum(*pair)))
        return torch.cat(features)[torch.cat(rows).argsort()]

    def pool(self, boxes: Tensor, shorter: int) -> Tensor:
        """Pool regions from the map at the scale `shorter`, [R, 4] -> [R, C, pooled, pooled]."""
        image_map = self.map_at(shorter)
        return self.net.pool(image_map.features, boxes * image_map.ratio)


def must_be_finite(*outputs: Tensor) -> None:
    """Raise RuntimeError if a network's outputs contain infinities or NaN."""
    if not all(output.isfinite().all() for output in outputs):
        raise RuntimeError("the network's outputs are infinite or NaN: its weights are unusable")


def lower_scale(boxes: Tensor, ratios: Tensor, side: float) -> Tensor:
    """Return the lower of two adjacent scales that bring each box closest to side x side pixels.

    `side` is the region size that pooling is designed for. `ratios` are the pixels of each resized
    image per pixel of the original.
    [R, 4], [S] -> index of the scale, int64 [R], 0 to S - 2
    """
    roots = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3).prod(1).sqrt()
    distances = (roots[:, None] * ratios / side).log().abs()  # [R, S]
    return (distances[:, :-1] + distances[:, 1:]).argmin(1)


def detect_objects(
    detector: AnyDetector, pixels: np.ndarray, search: InferenceConfig
) -> Detections:
    """Return one detector's detections in an image, RGB uint8 [H, W, 3], best first."""
    if isinstance(detector, ExportedDetector):
        return detector.detect(pixels, search)
    return detect_with_ensemble([detector], pixels, search)


@torch.no_grad()
def detect_with_ensemble(
    detectors: Sequence[Detector], pixels: np.ndarray, search: InferenceConfig
) -> Detections:
    """Return an ensemble's detections in an image, RGB uint8 [H, W, 3], best first.

    Each detector classifies the proposals of all detectors; probabilities and boxes are averaged
    (App. B).
    """
    images = [ImageFeatures(detector, pixels, search) for detector in detectors]

    def classify(boxes: Tensor) -> tuple[Tensor, Tensor]:
        outputs = [image.classify_regions(boxes) for image in images]
        probabilities, regressed = (
            torch.stack(parts).mean(0) for parts in zip(*outputs, strict=True)
        )
        return probabilities, regressed

    boxes = torch.cat([image.proposals() for image in images])
    if not len(boxes):
        return Detections(boxes.cpu(), boxes.new_empty(0).cpu(), torch.empty(0, dtype=torch.int64))
    probabilities, regressed = classify(boxes)
    if search.refine:
        best = probabilities[:, 1:].argmax(1)
        refined = regressed[torch.arange(len(best), device=best.device), best]
        refined = refined[large_enough(refined, 1)]
        if len(refined):
            again = classify(refined)
            probabilities = torch.cat([probabilities, again[0]])
            regressed = torch.cat([regressed, again[1]])
    detections = postprocess(probabilities, regressed, search)
    # a mean of boxes may exceed the image by a rounding error
    return replace(detections, boxes=clip(detections.boxes, images[0].width, images[0].height))


def postprocess(probabilities: Tensor, boxes: Tensor, search: InferenceConfig) -> Detections:
    """Convert the outputs for all regions to detections, best first, on the CPU.

    probabilities [R, classes + 1], background first; boxes [R, classes, 4]
    """
    region, label = (probabilities[:, 1:] > search.threshold).nonzero().unbind(1)
    candidates = Detections(boxes[region, label], probabilities[region, label + 1], label)
    detections = candidates.take(
        nms_by_class(candidates.boxes, candidates.scores, label, search.overlap, search.most)
    )
    if search.refine:
        detections = vote_by_class(detections, candidates)
    return Detections(detections.boxes.cpu(), detections.scores.cpu(), detections.labels.cpu())


def vote_by_class(detections: Detections, candidates: Detections) -> Detections:
    """Replace each box with the weighted mean of the candidates that overlap it (App. B)."""
    boxes = detections.boxes.clone()
    for label in detections.labels.unique():
        members, voters = detections.labels == label, candidates.labels == label
        boxes[members] = box_voting(
            boxes[members], candidates.boxes[voters], candidates.scores[voters]
        )
    return replace(detections, boxes=boxes)
