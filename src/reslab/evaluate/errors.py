"""Top-k errors from exact counts, and how far chance may have moved them."""

import math

import torch
from torch import Tensor

QUANTILE = 1.959963984540054  # of the normal distribution: 95 % lie within so many deviations


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


def wilson(wrong: int, n: int) -> tuple[float, float]:
    """The 95 % interval of an error rate after `wrong` of `n`, in percent (Wilson, 1927)."""
    rate, spread = wrong / n, QUANTILE**2 / n
    middle = rate + spread / 2
    half = math.sqrt(rate * (1 - rate) * spread + spread**2 / 4)
    low, high = ((middle + sign * half) / (1 + spread) for sign in (-1, 1))
    return 100 * max(low, 0.0), 100 * min(high, 1.0)
