"""Several models as one: the mean of their probabilities (Table 5)."""

from collections.abc import Sequence

import torch

from reslab.evaluate.scoring import log_mean
from reslab.evaluate.vault import Scores

ROWS = 10_000  # of scores that are averaged at a time


def ensemble(members: Sequence[Scores]) -> Scores:
    """The mean over models of their probabilities of the same pictures and the same classes."""
    first = members[0].log_probabilities
    assert all(member.log_probabilities.shape == first.shape for member in members)
    total = torch.empty_like(first)
    for start in range(0, len(first), ROWS):
        here = slice(start, start + ROWS)
        total[here] = log_mean([member.log_probabilities[here] for member in members])
    bad = {index: text for member in members for index, text in member.bad.items()}
    return Scores(total, bad)
