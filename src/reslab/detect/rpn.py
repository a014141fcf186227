"""The region proposal network: where there may be an object (Faster R-CNN, Sec. 3.1)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.detect.anchors import Anchors
from reslab.detect.geometry import clip, decode, large_enough
from reslab.detect.nms import nms
from reslab.models.layers import Conv

OVERLAP = 0.7  # IoU above which the lower-scored of two proposals is dropped (Sec. 3.1.3)


@dataclass(frozen=True)
class Proposed:
    """What the network says of each anchor of one picture."""

    anchors: Tensor  # [N, 4]
    logits: Tensor  # [N], float32; above 0 where it holds an object to be more probable than not
    deltas: Tensor  # [N, 4], float32

    @torch.no_grad()
    def boxes(
        self, width: float, height: float, *, before: int, after: int, smallest: float
    ) -> Tensor:
        """Proposals, best first, [R, 4]: of the `before` best boxes the `after` best that do not
        overlap, none narrower or lower than `smallest` pixels."""
        boxes = clip(decode(self.anchors, self.deltas), width, height)
        kept = large_enough(boxes, smallest).nonzero()[:, 0]
        best = self.logits[kept].argsort(descending=True, stable=True)[:before]
        boxes, scores = boxes[kept[best]], self.logits[kept[best]]
        return boxes[nms(boxes, scores, OVERLAP, after)]


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

    def forward(self, features: Tensor) -> Proposed:
        """Features of one picture, [1, c_in, h, w] -> N = h * w * anchors of a cell."""
        hidden = F.relu(self.conv(features))
        # channels go last: row by row, cell by cell, anchor by anchor, as `Anchors.over` has them
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten()
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(-1, 4)
        anchors = self.anchors.over(*features.shape[2:]).to(features.device)
        return Proposed(anchors, logits.float(), deltas.float())
