"""Faster R-CNN on a residual trunk (App. A): region proposal network and region head."""

from dataclasses import dataclass
from math import gcd

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from reslab.detection.box_ops import clip, decode_boxes, large_enough, nms
from reslab.detection.config import DetectorConfig
from reslab.detection.roi import roi_align, roi_pool
from reslab.detection.targets import Anchors
from reslab.models.config import EXPANSION
from reslab.models.layers import Conv, ConvBN, he_normal, unset_linear
from reslab.models.resnet import ResNet

PROPOSAL_NMS = 0.7  # IoU threshold for suppressing proposals (Faster R-CNN, Sec. 3.3)
GROUPS = 32  # in group normalisation, as in its paper; fewer where a group would be one channel
MIN_IMAGE_SIDE = 3  # pixels needed for one window of the stem's pooling
# standard deviations of the new layers' initial weights, as in the released code
NEW_STD, REGRESSOR_STD = 0.01, 0.001


@dataclass(frozen=True)
class AnchorPredictions:
    """The region proposal network's output for each anchor of one image."""

    anchors: Tensor  # [N, 4]
    logits: Tensor  # float32 [N]; above 0 where an object is more likely than not
    deltas: Tensor  # float32 [N, 4]

    @torch.no_grad()
    def proposals(
        self, width: float, height: float, *, before: int, after: int, smallest: float
    ) -> Tensor:
        """Select proposals, best first, [R, 4] with R <= `after`.

        Boxes are clipped to the image, boxes with a side below `smallest` pixels are dropped, and
        non-maximum suppression is applied to the `before` best of the rest.
        """
        boxes = clip(decode_boxes(self.anchors, self.deltas), width, height)
        large = large_enough(boxes, smallest).nonzero()[:, 0]
        best = large[self.logits[large].argsort(descending=True, stable=True)[:before]]
        boxes = boxes[best]
        return boxes[nms(boxes, self.logits[best], PROPOSAL_NMS, after)]


class ProposalNetwork(nn.Module):
    """A 3x3 convolution and two sibling 1x1 convolutions, with uninitialised weights.

    Objectness is one logit per anchor, the logistic regression that a footnote in the Faster R-CNN
    paper allows; the released code uses two outputs and a softmax.
    """

    def __init__(self, c_in: int, width: int, anchors: Anchors) -> None:
        super().__init__()
        self.anchors = anchors
        self.conv = Conv(c_in, width, 3, padding=1)
        self.objectness = Conv(width, anchors.per_cell, 1)
        self.deltas = Conv(width, 4 * anchors.per_cell, 1)

    def forward(self, features: Tensor) -> AnchorPredictions:
        """Predict for every anchor of an image from its features, [1, c_in, h, w]."""
        hidden = F.relu(self.conv(features))
        # channels last, to match the order of `Anchors.grid`: by row, cell and anchor
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten()
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(-1, 4)
        anchors = self.anchors.grid(*features.shape[2:]).to(features.device)
        return AnchorPredictions(anchors, logits.float(), deltas.float())


class FasterRCNN(nn.Module):
    """The trunk, the region proposal network and the region head, with uninitialised weights.

    The residual part has the same parameter names as a classification network.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        net = ResNet(config.trunk.without_randomness())  # a detector trains without dropped blocks
        self.stem, self.stages = net.stem, net.stages
        if config.norm == "group":
            for module in [*self.stem.modules(), *self.stages.modules()]:
                if isinstance(module, ConvBN) and isinstance(module.norm, nn.BatchNorm2d):
                    module.norm = group_norm_like(module.norm)  # pyrefly: ignore[bad-assignment]
        c_trunk, c_out = (EXPANSION[config.trunk.block] * w for w in config.trunk.widths[-2:])
        self.proposals = ProposalNetwork(c_trunk, config.width, config.anchors)
        c_region = 2 * c_out if config.context else c_out
        self.classifier = unset_linear(c_region, config.classes + 1)
        self.regressor = unset_linear(c_region, 4 * config.classes)

    @property
    def trunk(self) -> list[nn.Module]:
        """The stem and all stages but the last: conv1 to conv4_x."""
        return [self.stem, *list(self.stages)[:-1]]

    def features(self, images: Tensor) -> Tensor:
        """Compute the feature map shared by proposals and regions, [B, 3, H, W] -> [B, C, h, w]."""
        height, width = images.shape[2:]
        # an image one or two pixels wide or high is padded with zeros, which stand for the mean
        x = F.pad(images, (0, max(MIN_IMAGE_SIDE - width, 0), 0, max(MIN_IMAGE_SIDE - height, 0)))
        for part in self.trunk:
            x = part(x)
        return x

    def pool(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Pool regions from one image, [1, C, h, w], xyxy [R, 4] -> [R, C, pooled, pooled]."""
        pool = roi_pool if self.config.pooling == "max" else roi_align
        images = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return pool(features, boxes, images, self.config.pooled, self.config.stride)

    def region_features(self, pooled: Tensor) -> Tensor:
        """Apply conv5_x and average pooling, [R, C, pooled, pooled] -> [R, c]."""
        x = self.stages[-1](pooled)
        return F.avg_pool2d(x, x.shape[-2:]).flatten(1)

    def classify_regions(self, regions: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Classify regions by their features, [R, c], and regress their boxes.

        With context, `whole` holds the features of the whole image, [1, c]; otherwise it is unused.
        Return scores before the softmax, background first, [R, classes + 1], and deltas
        [R, classes, 4].
        """
        if self.config.context:
            regions = torch.cat([regions, whole.expand(len(regions), -1)], 1)
        scores, deltas = self.classifier(regions), self.regressor(regions)
        return scores.float(), deltas.float().view(-1, self.config.classes, 4)

    def append_whole_image(self, boxes: Tensor, width: float, height: float) -> Tensor:
        """Append the whole image as a box if the network uses context, [R, 4] -> [R + 1, 4]."""
        if not self.config.context:
            return boxes
        return torch.cat([boxes, boxes.new_tensor([[0, 0, width, height]])])


def group_norm_like(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    """Return a group normalisation to replace a batch norm."""
    channels = norm.num_features
    groups = gcd(channels, min(GROUPS, max(channels // 2, 1)))
    return nn.GroupNorm(groups, channels, norm.eps)


def build_detector(config: DetectorConfig, rng: Generator) -> FasterRCNN:
    """Build the network of `config` with random initial weights from `rng`."""
    net = FasterRCNN(config)
    for module in [*net.stem.modules(), *net.stages.modules()]:
        if isinstance(module, nn.Conv2d):
            he_normal(module, rng)
    proposals = net.proposals
    for layer in (proposals.conv, proposals.objectness, proposals.deltas, net.classifier):
        init_new_layer(layer, NEW_STD, rng)
    init_new_layer(net.regressor, REGRESSOR_STD, rng)
    return net


def init_new_layer(layer: nn.Conv2d | nn.Linear, std: float, rng: Generator) -> None:
    """Initialise weights from a Gaussian and biases to zero, as in Fast R-CNN (Sec. 2.3)."""
    nn.init.normal_(layer.weight, std=std, generator=rng)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
