"""The gradients of a mini-batch: those of its shares, added in the order of the shares.

Sums of floats depend on their order. One process adds share by share as backward does by itself;
several keep the gradients of their shares apart and add all of them in that same order.
"""

from collections.abc import Callable, Sequence
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor, nn


@final
class InPlace:
    """One process: backward adds them."""

    def store(self) -> None:
        """A share's backward is done."""

    def reduce(self) -> None:
        """All shares are done: `.grad` of every weight becomes the sum over all processes."""


@final
class OrderedReduce:
    """Several processes, each with as many of the shares.

    Every process adds one stretch of the weights over all shares, and gives it to the others. That
    moves as many bytes as a ring of sums would with one share a process, but in a fixed order.
    """

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        count: int,
        together: Callable[[Callable[[], object]], None],
    ) -> None:
        self.weights, self.count, self.together = weights, count, together
        self.length = sum(weight.numel() for weight in weights)
        # behind the gradients, which weights have one: an optimizer passes over those without
        self.stretch = -(-(self.length + len(weights)) // count)
        self.sum = self.new_row()
        self.rows: list[Tensor] = []  # of the shares
        self.kept = 0

    def new_row(self) -> Tensor:
        return self.weights[0].detach().new_empty(self.count * self.stretch)

    def store(self) -> None:
        if self.kept == len(self.rows):
            self.rows.append(self.new_row())
        row = self.rows[self.kept]
        self.kept += 1
        row.fill_(-0.0)  # which, added to any number, changes nothing
        for place, (weight, part) in enumerate(zip(self.weights, self.parts(row), strict=True)):
            if weight.grad is not None:
                part.copy_(weight.grad)
                row[self.length + place] = 1
                weight.grad = None

    def reduce(self) -> None:
        sent = torch.stack([row.view(self.count, -1) for row in self.rows[: self.kept]], 1)
        came = torch.empty_like(sent)
        self.kept = 0
        self.together(lambda: dist.all_to_all_single(came, sent))
        first, *others = came.view(-1, self.stretch)
        for other in others:
            first.add_(other)
        self.together(lambda: dist.all_gather(list(self.sum.chunk(self.count)), first))
        there = self.sum[self.length : self.length + len(self.weights)].tolist()
        for weight, part, found in zip(self.weights, self.parts(self.sum), there, strict=True):
            weight.grad = part if found > 0 else None

    def parts(self, row: Tensor) -> list[Tensor]:
        """The stretch of each weight, shaped and laid out as the weight is."""
        found, start = [], 0
        for weight in self.weights:
            found.append(
                row.as_strided(weight.shape, weight.stride(), row.storage_offset() + start)
            )
            start += weight.numel()
        return found
