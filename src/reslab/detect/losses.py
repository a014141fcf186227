"""What a detector is trained to do: the losses of Faster R-CNN and Fast R-CNN, of one picture."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.detect.assign import AnchorTargets, RegionTargets
from reslab.detect.rpn import Proposed

# where the smooth L1 loss turns from a parabola into a line: the released code's sigma is 3 for
# proposals and 1 for regions, and this is 1 / sigma^2
PROPOSAL_BETA, REGION_BETA = 1 / 9, 1.0


def proposal_loss(found: Proposed, targets: AnchorTargets) -> Tensor:
    """Whether there is an object, and where; both divided by the number of sampled anchors, []."""
    count = max(len(targets.anchors), 1)  # a picture smaller than all anchors has none
    logits = found.logits[targets.anchors]
    objects = F.binary_cross_entropy_with_logits(logits, targets.objects, reduction="sum")
    deltas = found.deltas[targets.anchors[: len(targets.deltas)]]
    places = F.smooth_l1_loss(deltas, targets.deltas, reduction="sum", beta=PROPOSAL_BETA)
    return (objects + places) / count


def region_loss(scores: Tensor, deltas: Tensor, targets: RegionTargets) -> Tensor:
    """Which class, and for foreground where; both divided by the number of sampled regions, [].

    scores [S, classes + 1], deltas [S, classes, 4]
    """
    count = max(len(targets.labels), 1)  # nothing may be left of a picture's proposals
    kinds = F.cross_entropy(scores, targets.labels, reduction="sum")
    objects = torch.arange(len(targets.deltas), device=deltas.device)
    own = deltas[objects, targets.labels[objects] - 1]  # each by what regresses its own class
    places = F.smooth_l1_loss(own, targets.deltas, reduction="sum", beta=REGION_BETA)
    return (kinds + places) / count
