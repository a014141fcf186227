"""The ONNX graph of a whole detector: a decoded image -> boxes, scores and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from reslab.deploy.boxes import (
    add_clipping,
    add_decoding,
    add_is_large,
    add_resized_sides,
    add_suppression,
)
from reslab.deploy.exact_resize import Crop, add_exact_crop
from reslab.deploy.graph import Graph, value
from reslab.deploy.network import PREPARED, add_conv, add_layers, add_linear
from reslab.deploy.prepare import add_arithmetic
from reslab.deploy.regions import add_pooling
from reslab.deploy.steps import DOUBLE, FLOAT, Steps
from reslab.detection.box_ops import REGION_STDS
from reslab.detection.inference import Detector
from reslab.detection.network import MIN_IMAGE_SIDE, PROPOSAL_NMS, FasterRCNN
from reslab.detection.recipe import InferenceConfig
from reslab.models.batchnorm import fold_in_fp32

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGE, THRESHOLD = "image", "threshold"  # the inputs of an exported detector
BOXES, SCORES, LABELS = "boxes", "scores", "labels"  # its outputs
LOWEST = np.finfo(np.float32).min  # in place of the logits of boxes that are too small


def detector_graph(detector: Detector) -> ModelProto:
    """Return a detector's ONNX graph with its preprocessing and post-processing inside.

    `image`, uint8 [height, width, 3], is a decoded RGB image of any size; detections with
    probabilities above `threshold`, float32 [1], are returned, best first: `boxes`, float32 [n, 4],
    are xyxy in pixels of the image, `scores` float32 [n] and `labels` int64 [n]. All other settings
    are those of `detector.search`, without box refinement and multi-scale testing.

    Images are resized to Pillow's values: a pixel that is one level off can decide which of two
    boxes with nearly equal scores suppresses the other.
    """
    net = fold_in_fp32(detector.net).to("cpu")
    search = detector.search
    graph = Graph()
    image = add_image(graph, detector)
    features = add_features(graph, net, image.prepared)
    proposals = add_proposals(graph, net, features, image, search)
    probabilities, boxes = add_classification(graph, net, features, proposals, image, search)
    add_detections(graph, probabilities, boxes, search)
    return graph.model(
        [value(IMAGE, np.uint8, ["height", "width", 3]), value(THRESHOLD, np.float32, [1])],
        [
            value(BOXES, np.float32, ["detections", 4]),
            value(SCORES, np.float32, ["detections"]),
            value(LABELS, np.int64, ["detections"]),
        ],
    )


@dataclass(frozen=True)
class ImageNodes:
    """The names of an image's values."""

    prepared: str  # [1, 3, h, w]
    limits: str  # width and height, twice, of the given image, float32 [4]
    resized: str  # the same of the resized image
    ratio: str  # pixels of the resized image per pixel of the given one, float32 [4]


def add_image(graph: Graph, detector: Detector) -> ImageNodes:
    """Add resizing and the network's preprocessing of an image."""
    search, step = detector.search, Steps(graph, "image")
    sides = step("Shape", IMAGE, attributes={"end": 2})
    scaled = add_resized_sides(step, sides, search.shorter, search.longest)
    planes = step("Transpose", IMAGE, attributes={"perm": (2, 0, 1)})
    planes = step("Unsqueeze", planes, np.array([0]))
    whole = Crop(sides, scaled, starts=graph.numbers(0, 0), sizes=scaled)
    pixels = add_exact_crop(graph, planes, whole, "bilinear")
    add_arithmetic(graph, pixels, detector.preprocessing, None)
    # an image narrower than one window of the stem's pooling is padded, as in `features`
    missing = step("Max", step("Sub", np.array(MIN_IMAGE_SIDE), scaled), np.array(0))
    pads = step("Concat", np.zeros(6, np.int64), missing, attributes={"axis": 0})
    corner, resized = (step("Gather", pair, np.array([1, 0, 1, 0])) for pair in (sides, scaled))
    ratio = step("Div", step.cast(resized, DOUBLE), step.cast(corner, DOUBLE))
    return ImageNodes(
        prepared=step("Pad", PREPARED, pads),
        limits=step.cast(corner, FLOAT),
        resized=step.cast(resized, FLOAT),
        ratio=step.cast(ratio, FLOAT),
    )


def add_features(graph: Graph, net: FasterRCNN, x: str) -> str:
    """Add the part of the trunk that proposals and regions share."""
    stem, *stages = net.trunk
    assert isinstance(stem, nn.Sequential)
    x = add_layers(graph, stem, x, "stem")
    for index, stage in enumerate(stages):
        assert isinstance(stage, nn.Sequential)
        x = add_layers(graph, stage, x, f"stages.{index}")
    return x


@dataclass(frozen=True)
class Proposals:
    """The names of a fixed number of proposals; zeros follow where there are fewer."""

    boxes: str  # float32 [R, 4], in pixels of the resized image
    are_real: str  # float32 [R, 1], 0 for the zeros


def add_proposals(
    graph: Graph, net: FasterRCNN, features: str, image: ImageNodes, search: InferenceConfig
) -> Proposals:
    """Add the region proposal network, and the selection of its best boxes."""
    layers, step = net.proposals, Steps(graph, "proposals")
    hidden = add_conv(graph, layers.conv, features, "proposals.conv")
    hidden = step("Relu", hidden)
    logits = add_conv(graph, layers.objectness, hidden, "proposals.objectness")
    deltas = add_conv(graph, layers.deltas, hidden, "proposals.deltas")
    by_cell = {"perm": (0, 2, 3, 1)}
    logits = step("Reshape", step("Transpose", logits, attributes=by_cell), np.array([-1]))
    deltas = step("Reshape", step("Transpose", deltas, attributes=by_cell), np.array([-1, 4]))
    anchors = add_anchors(step, features, layers.anchors.shapes(), layers.anchors.stride)
    boxes = add_clipping(step, add_decoding(step, anchors, deltas), image.resized)
    least = step("Mul", np.float32(search.smallest), step.at(image.ratio, 0))
    logits = step("Where", add_is_large(step, boxes, least), logits, LOWEST)
    count = step("Min", step.count(logits), np.array([search.before]))
    best = step.largest(logits, count)
    boxes = step("Gather", boxes, best)
    # ranks instead of logits, so that the order is the same; none for boxes that are too small
    ranks = step("Sub", count, step.below(step("Squeeze", count)))
    large = step("Greater", step("Gather", logits, best), LOWEST)
    ranks = step("Where", large, step.cast(ranks, FLOAT), np.float32(0))
    ranks, candidates = (step("Unsqueeze", part, np.array([0])) for part in (ranks, boxes))
    kept = add_suppression(
        step,
        candidates,
        ranks,
        most=search.proposals,
        overlap=PROPOSAL_NMS,
        above=np.zeros(1, np.float32),
    )
    boxes = step("Gather", boxes, step.at(kept, 1))
    number = step.count(boxes)
    lacking = step("Sub", np.array([search.proposals]), number)
    pads = step("Concat", np.zeros(2, np.int64), lacking, np.array([0]), attributes={"axis": 0})
    real = step("Less", np.arange(search.proposals)[:, None], number)
    return Proposals(step("Pad", boxes, pads), step.cast(real, FLOAT))


def add_anchors(step: Steps, features: str, shapes: Tensor, stride: int) -> str:
    """Add the anchors of all cells of a feature map, as `Anchors.grid` orders them, [N, 4]."""
    sides = step("Shape", features, attributes={"start": 2})
    centres = []
    for axis, shape, used in ((0, (-1, 1, 1, 1), (0, 1, 0, 1)), (1, (1, -1, 1, 1), (1, 0, 1, 0))):
        cells = step.cast(step.below(step.at(sides, axis)), FLOAT)
        middle = step("Mul", step("Add", cells, np.float32(0.5)), np.float32(stride))
        middle = step("Reshape", middle, np.array(shape))
        centres.append(
            step("Mul", middle, np.array(used, np.float32))
        )  # [h, 1, 1, 4] or [1, w, 1, 4]
    grid = step("Add", step("Add", *centres), shapes.numpy())
    return step("Reshape", grid, np.array([-1, 4]))


def add_classification(
    graph: Graph,
    net: FasterRCNN,
    features: str,
    proposals: Proposals,
    image: ImageNodes,
    search: InferenceConfig,
) -> tuple[str, str]:
    """Add the region head: class probabilities, and a box for each class in the given image.

    Return [R, classes], without the background and 0 where there is no proposal, and
    [R, classes, 4].
    """
    step, count = Steps(graph, "regions"), search.proposals
    regions = boxes = step("Div", proposals.boxes, image.ratio)
    if net.config.context:
        whole = step("Mul", image.limits, np.array([0, 0, 1, 1], np.float32))
        whole = step("Unsqueeze", whole, np.array([0]))
        regions = step("Concat", boxes, whole, attributes={"axis": 0})
    channels, longest = net.proposals.conv.in_channels, max(search.longest, MIN_IMAGE_SIDE)
    scaled = step("Mul", regions, image.ratio)
    pooled = add_pooling(step, features, channels, scaled, net.config, longest)
    last = len(net.stages) - 1
    layers = net.stages[last]
    assert isinstance(layers, nn.Sequential)
    x = add_layers(graph, layers, pooled, f"stages.{last}")
    x = step("Flatten", step("GlobalAveragePool", x))
    if net.config.context:
        whole = step("Slice", x, np.array([count]), np.array([count + 1]))
        x = step("Slice", x, np.array([0]), np.array([count]))
        whole = step("Expand", whole, step("Shape", x))
        x = step("Concat", x, whole, attributes={"axis": 1})
    logits = add_linear(graph, net.classifier, x, "classifier", "classifier")
    deltas = add_linear(graph, net.regressor, x, "regressor", "regressor")
    probabilities = step("Softmax", logits, attributes={"axis": 1})
    classes = np.arange(1, net.config.classes + 1)
    probabilities = step("Gather", probabilities, classes, attributes={"axis": 1})
    probabilities = step("Mul", probabilities, proposals.are_real)
    deltas = step("Reshape", deltas, np.array([count, net.config.classes, 4]))
    references = step("Unsqueeze", boxes, np.array([1]))
    regressed = add_decoding(step, references, deltas, REGION_STDS)
    return probabilities, add_clipping(step, regressed, image.limits)


def add_detections(graph: Graph, probabilities: str, boxes: str, search: InferenceConfig) -> None:
    """Add non-maximum suppression and the graph's outputs.

    probabilities [R, classes], boxes [R, classes, 4]
    """
    step = Steps(graph, "detections")
    scores = step("Transpose", probabilities, attributes={"perm": (1, 0)})
    boxes = step("Transpose", boxes, attributes={"perm": (1, 0, 2)})
    kept = add_suppression(
        step, boxes, scores,
        most=search.proposals, overlap=search.overlap, above=THRESHOLD,
    )  # fmt: skip
    scores = step("GatherND", scores, kept)
    count = step("Min", step.count(scores), np.array([search.most]))
    best = step.largest(scores, count)
    kept = step("Gather", kept, best)
    graph.add("GatherND", [boxes, kept], BOXES)
    graph.add("Gather", [scores, best], SCORES)
    graph.add("Gather", [kept, graph.number(0)], LABELS, {"axis": 1})
