"""The region proposal network: where there may be an object (Faster R-CNN, Sec. 3.1)."""

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
from reslab.models.layers import Classifier, Conv, ConvBN, he_normal
from reslab.models.resnet import ResNet

PROPOSAL_NMS = 0.7  # IoU above which the lower-scored of two proposals is dropped (Sec. 3.1.3)


@dataclass(frozen=True)
class AnchorPredictions:
    """What the network says of each anchor of one image."""

    anchors: Tensor  # [N, 4]
    logits: Tensor  # [N], float32; above 0 where it holds an object to be more probable than not
    deltas: Tensor  # [N, 4], float32

    @torch.no_grad()
    def boxes(
        self, width: float, height: float, *, before: int, after: int, smallest: float
    ) -> Tensor:
        """Proposals, best first, [R, 4]: of the `before` best boxes the `after` best that do not
        overlap, none narrower or lower than `smallest` pixels."""
        boxes = clip(decode_boxes(self.anchors, self.deltas), width, height)
        kept = large_enough(boxes, smallest).nonzero()[:, 0]
        best = self.logits[kept].argsort(descending=True, stable=True)[:before]
        boxes, scores = boxes[kept[best]], self.logits[kept[best]]
        return boxes[nms(boxes, scores, PROPOSAL_NMS, after)]


class ProposalNetwork(nn.Module):
    """A 3x3 convolution and two sibling 1x1 ones; weights unset.

    One output an anchor says whether there is an object, as the logistic regression that the
    paper's footnote allows; the released code has two and a softmax.
    """

    def __init__(self, c_in: int, width: int, anchors: Anchors) -> None:
        super().__init__()
        self.anchors = anchors
        self.conv = Conv(c_in, width, 3, padding=1)
        self.objectness = Conv(width, anchors.per_cell, 1)
        self.deltas = Conv(width, 4 * anchors.per_cell, 1)

    def forward(self, features: Tensor) -> AnchorPredictions:
        """Features of one image, [1, c_in, h, w] -> N = h * w * anchors of a cell."""
        hidden = F.relu(self.conv(features))
        # channels go last: row by row, cell by cell, anchor by anchor, as `Anchors.over` has them
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten()
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(-1, 4)
        anchors = self.anchors.over(*features.shape[2:]).to(features.device)
        return AnchorPredictions(anchors, logits.float(), deltas.float())


Norm = Literal["frozen", "recompute", "group"]

GROUPS = 32  # of group normalisation, as its authors'; fewer where a group would be one channel
MIN_IMAGE_SIDE = 3  # pixels of an image's sides that the stem's pooling finds a window in
# standard deviations of the new layers' first weights, of the released code
NEW, NEW_REGRESSION = 0.01, 0.001


class DetectorConfig(BaseModel):
    """The complete description of one detector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trunk: ResNetConfig  # all of its stages but the last, which sees the regions
    classes: int = Field(ge=1)  # without the background
    # batch norm as a fixed affine map, of the statistics that came with the weights or of ones
    # computed anew over the images; or group normalisation in its place
    norm: Norm = "frozen"
    sizes: tuple[PositiveFloat, ...] = Field((128, 256, 512), min_length=1)  # of anchors, pixels
    ratios: tuple[PositiveFloat, ...] = Field((0.5, 1, 2), min_length=1)  # height to width
    width: PositiveInt = 512  # channels of the region proposal network
    pooling: Literal["max", "align"] = "max"
    pooled: PositiveInt = 14  # a region's side in cells; conv5_1 halves it (docs/deviations.md)
    context: bool = False  # the whole image beside each region (App. B)

    @property
    def stride(self) -> int:
        """Pixels of an image for a cell of its map."""
        return (4 if self.trunk.stem == "imagenet" else 1) * 2 ** (len(self.trunk.blocks) - 2)

    @property
    def anchors(self) -> Anchors:
        return Anchors(self.sizes, self.ratios, self.stride)


class FasterRCNN(nn.Module):
    """The trunk, the region proposal network and what judges regions; weights unset.

    Its residual part has the names that it has in a classification net.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        net = ResNet(config.trunk)
        self.stem, self.stages = net.stem, net.stages
        if config.norm == "group":
            for module in [*self.stem.modules(), *self.stages.modules()]:
                if isinstance(module, ConvBN):
                    module.norm = group_norm(module.norm)  # pyrefly: ignore[bad-assignment]
        before, c_out = (EXPANSION[config.trunk.block] * w for w in config.trunk.widths[-2:])
        self.proposals = ProposalNetwork(before, config.width, config.anchors)
        c_region = 2 * c_out if config.context else c_out
        self.classifier = Classifier(c_region, config.classes + 1)
        self.regressor = Classifier(c_region, 4 * config.classes)

    @property
    def trunk(self) -> list[nn.Module]:
        """conv1 to conv4_x: the stem and all stages but the last."""
        return [self.stem, *list(self.stages)[:-1]]

    def features(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> the map that proposals and regions share, [B, C, h, w]"""
        height, width = images.shape[2:]
        # zeros, the mean's value, right and below an image that is but a line
        x = F.pad(images, (0, max(MIN_IMAGE_SIDE - width, 0), 0, max(MIN_IMAGE_SIDE - height, 0)))
        for part in self.trunk:
            x = part(x)
        return x

    def pool(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Regions of one image, [1, C, h, w], xyxy [R, 4] -> [R, C, pooled, pooled]"""
        pool = roi_pool if self.config.pooling == "max" else roi_align
        images = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return pool(features, boxes, images, self.config.pooled, self.config.stride)

    def region_features(self, pooled: Tensor) -> Tensor:
        """conv5_x and average pooling; [R, C, pooled, pooled] -> [R, c]"""
        x = self.stages[-1](pooled)
        return F.avg_pool2d(x, x.shape[-2:]).flatten(1)

    def classify_regions(self, regions: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Region features [R, c]; with context those of the whole image, [1, c], else none.

        -> scores before the softmax, background first, [R, classes + 1]; deltas [R, classes, 4]
        """
        if self.config.context:
            regions = torch.cat([regions, whole.expand(len(regions), -1)], 1)
        scores, deltas = self.classifier(regions), self.regressor(regions)
        return scores.float(), deltas.float().view(-1, self.config.classes, 4)

    def with_whole(self, boxes: Tensor, width: float, height: float) -> Tensor:
        """The regions, [R, 4], and after them what gives context: the whole image, if any."""
        if not self.config.context:
            return boxes
        return torch.cat([boxes, boxes.new_tensor([[0, 0, width, height]])])


def group_norm(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    """In the place of a batch norm."""
    channels = norm.num_features
    groups = gcd(channels, min(GROUPS, max(channels // 2, 1)))
    return nn.GroupNorm(groups, channels, norm.eps)


def build_detector(config: DetectorConfig, rng: Generator) -> FasterRCNN:
    """The network of `config`, its weights drawn from `rng`."""
    net = FasterRCNN(config)
    for module in [*net.stem.modules(), *net.stages.modules()]:
        if isinstance(module, nn.Conv2d):
            he_normal(module, rng)
    proposals = net.proposals
    for layer in (proposals.conv, proposals.objectness, proposals.deltas, net.classifier):
        new_layer(layer, NEW, rng)
    new_layer(net.regressor, NEW_REGRESSION, rng)
    return net


def new_layer(layer: nn.Conv2d | nn.Linear, std: float, rng: Generator) -> None:
    """Gaussian weights, no bias at first, as in Fast R-CNN (Sec. 2.3)."""
    nn.init.normal_(layer.weight, std=std, generator=rng)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def detector_channels_last(net: FasterRCNN) -> FasterRCNN:
    """The same network, its convolutions laid out as processors and GPUs read them best."""
    return net.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
