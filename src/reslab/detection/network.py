"""The network of Faster R-CNN on a residual trunk: proposals (Sec. 3.1) and regions (App. A)."""

from dataclasses import dataclass
from math import gcd
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn

from reslab.detection.box_ops import clip, decode_boxes, large_enough, nms
from reslab.detection.roi import roi_align, roi_pool
from reslab.detection.targets import Anchors
from reslab.models.config import EXPANSION, ResNetConfig
from reslab.models.layers import Conv, ConvBN, he_normal, unset_linear
from reslab.models.resnet import ResNet

PROPOSAL_NMS = 0.7  # IoU above which the lower-scored of two proposals is dropped (Sec. 3.1.3)
GROUPS = 32  # of group normalisation, as its authors'; fewer where a group would be one channel
MIN_IMAGE_SIDE = 3  # pixels that the stem's pooling needs to find a window
# standard deviations of the new layers' initial weights, the released code's
NEW_STD, REGRESSOR_STD = 0.01, 0.001

Norm = Literal["frozen", "recompute", "group"]


@dataclass(frozen=True)
class AnchorPredictions:
    """The region proposal network's output for each anchor of one image."""

    anchors: Tensor  # [N, 4]
    logits: Tensor  # float32 [N]; above 0 where an object is more probable than none
    deltas: Tensor  # float32 [N, 4]

    @torch.no_grad()
    def proposals(
        self, width: float, height: float, *, before: int, after: int, smallest: float
    ) -> Tensor:
        """Select proposals, best first, [R, 4] with R <= `after`.

        Boxes are clipped to the image, those with a side below `smallest` pixels are dropped, and
        the `before` best of the rest go through non-maximum suppression.
        """
        boxes = clip(decode_boxes(self.anchors, self.deltas), width, height)
        large = large_enough(boxes, smallest).nonzero()[:, 0]
        best = large[self.logits[large].argsort(descending=True, stable=True)[:before]]
        boxes = boxes[best]
        return boxes[nms(boxes, self.logits[best], PROPOSAL_NMS, after)]


class ProposalNetwork(nn.Module):
    """A 3x3 convolution and two sibling 1x1 convolutions; weights unset.

    Objectness is one logit per anchor, the logistic regression that the paper's footnote allows;
    the released code has two outputs and a softmax.
    """

    def __init__(self, c_in: int, width: int, anchors: Anchors) -> None:
        super().__init__()
        self.anchors = anchors
        self.conv = Conv(c_in, width, 3, padding=1)
        self.objectness = Conv(width, anchors.per_cell, 1)
        self.deltas = Conv(width, 4 * anchors.per_cell, 1)

    def forward(self, features: Tensor) -> AnchorPredictions:
        """Predict for the features of one image, [1, c_in, h, w]; N = h * w * anchors per cell."""
        hidden = F.relu(self.conv(features))
        # channels last: row by row, cell by cell, anchor by anchor, the order of `Anchors.grid`
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten()
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(-1, 4)
        anchors = self.anchors.grid(*features.shape[2:]).to(features.device)
        return AnchorPredictions(anchors, logits.float(), deltas.float())


class DetectorConfig(BaseModel):
    """The complete description of one detector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trunk: ResNetConfig  # its last stage sees the regions, the others the image
    classes: int = Field(ge=1)  # without the background
    # batch norm as a fixed affine map, with the statistics that came with the weights or with ones
    # recomputed over the images; or group normalisation in its place
    norm: Norm = "frozen"
    sizes: tuple[PositiveFloat, ...] = Field((128, 256, 512), min_length=1)  # of anchors, pixels
    ratios: tuple[PositiveFloat, ...] = Field((0.5, 1, 2), min_length=1)  # height to width
    width: PositiveInt = 512  # channels of the region proposal network
    pooling: Literal["max", "align"] = "max"
    pooled: PositiveInt = 14  # a region's side in cells; conv5_1 halves it (docs/deviations.md)
    context: bool = False  # the whole image beside each region (App. B)

    @property
    def stride(self) -> int:
        """Pixels of the image per cell of its feature map."""
        return (4 if self.trunk.stem == "imagenet" else 1) * 2 ** (len(self.trunk.blocks) - 2)

    @property
    def anchors(self) -> Anchors:
        return Anchors(self.sizes, self.ratios, self.stride)


class FasterRCNN(nn.Module):
    """The trunk, the region proposal network and the region head; weights unset.

    The residual part has the parameter names of a classification network.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        net = ResNet(config.trunk)
        self.stem, self.stages = net.stem, net.stages
        if config.norm == "group":
            for module in [*self.stem.modules(), *self.stages.modules()]:
                if isinstance(module, ConvBN):
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
        """Compute the map that proposals and regions share, [B, 3, H, W] -> [B, C, h, w]."""
        height, width = images.shape[2:]
        # an image one or two pixels wide or high is padded with zeros, the value of the mean
        x = F.pad(images, (0, max(MIN_IMAGE_SIDE - width, 0), 0, max(MIN_IMAGE_SIDE - height, 0)))
        for part in self.trunk:
            x = part(x)
        return x

    def pool(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Pool regions of one image, [1, C, h, w], xyxy [R, 4] -> [R, C, pooled, pooled]."""
        pool = roi_pool if self.config.pooling == "max" else roi_align
        images = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return pool(features, boxes, images, self.config.pooled, self.config.stride)

    def region_features(self, pooled: Tensor) -> Tensor:
        """Apply conv5_x and average pooling, [R, C, pooled, pooled] -> [R, c]."""
        x = self.stages[-1](pooled)
        return F.avg_pool2d(x, x.shape[-2:]).flatten(1)

    def classify_regions(self, regions: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Classify regions by their features, [R, c], and regress their boxes.

        With context, `whole` are the features of the whole image, [1, c]; else it is unused.
        -> scores before the softmax, background first, [R, classes + 1]; deltas [R, classes, 4]
        """
        if self.config.context:
            regions = torch.cat([regions, whole.expand(len(regions), -1)], 1)
        scores, deltas = self.classifier(regions), self.regressor(regions)
        return scores.float(), deltas.float().view(-1, self.config.classes, 4)

    def append_whole_image(self, boxes: Tensor, width: float, height: float) -> Tensor:
        """Append the box of the whole image if the config wants context, [R, 4] -> [R + 1, 4]."""
        if not self.config.context:
            return boxes
        return torch.cat([boxes, boxes.new_tensor([[0, 0, width, height]])])


def group_norm_like(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    """Make the group normalisation that replaces a batch norm."""
    channels = norm.num_features
    groups = gcd(channels, min(GROUPS, max(channels // 2, 1)))
    return nn.GroupNorm(groups, channels, norm.eps)


def build_detector(config: DetectorConfig, rng: Generator) -> FasterRCNN:
    """Build the network of `config`, its weights drawn from `rng`."""
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
    """Draw Gaussian weights and set biases to zero, as in Fast R-CNN (Sec. 2.3)."""
    nn.init.normal_(layer.weight, std=std, generator=rng)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
