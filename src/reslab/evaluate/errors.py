"""Top-k errors from exact counts."""

import torch
from torch import Tensor


def wrong_in_top(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Which labels are not among the k highest scores; [B, classes], [B] -> bool [B].

    A label shares its score with another class only by accident or by collapse; then the lower
    index ranks first, so a net that scores all classes alike earns nothing by it.
    """
    own = scores.gather(1, labels[:, None])  # [B, 1]
    index = torch.arange(scores.shape[1], device=scores.device)
    ahead = (scores > own) | ((scores == own) & (index < labels[:, None]))
    right = (ahead.sum(1) < k) & own[:, 0].isfinite()
    return ~right
