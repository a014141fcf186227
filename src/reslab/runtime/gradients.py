"""Sums of the shares' gradients of a mini-batch, always in the order of the shares.

A floating-point sum depends on its order. In one process, backward itself adds share by share;
several processes store each share's gradients apart and add them all in that same order.
"""

from collections.abc import Callable, Sequence
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor, nn


@final
class InPlace:
    """In one process, backward adds to `.grad`."""

    def store(self) -> None:
        """Take the gradients of a share whose backward pass is done."""

    def reduce(self) -> None:
        """Set `.grad` of every weight to the sum over all shares of all processes."""


@final
class OrderedReduce:
    """Sum over several processes, each with the same number of shares.

    Each process sums one stretch of the weights over all shares and sends it to the others. This
    moves as many bytes as a ring all-reduce with one share a process, but in a fixed order.
    """

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        count: int,
        collective: Callable[[Callable[[], object]], None],
    ) -> None:
        self.weights, self.count, self.collective = weights, count, collective
        self.length = sum(weight.numel() for weight in weights)
        # after the gradients, a flag for each weight that has one: an optimizer skips the rest
        self.stretch = -(-(self.length + len(weights)) // count)
        self.sum = self.new_row()
        self.rows: list[Tensor] = []  # one for each share
        self.stored = 0

    def new_row(self) -> Tensor:
        return self.weights[0].detach().new_empty(self.count * self.stretch)

    def store(self) -> None:
        if self.stored == len(self.rows):
            self.rows.append(self.new_row())
        row = self.rows[self.stored]
        self.stored += 1
        row.fill_(-0.0)  # adding -0 changes no number
        for place, (weight, part) in enumerate(zip(self.weights, self.parts(row), strict=True)):
            if weight.grad is not None:
                part.copy_(weight.grad)
                row[self.length + place] = 1
                weight.grad = None

    def reduce(self) -> None:
        sent = torch.stack([row.view(self.count, -1) for row in self.rows[: self.stored]], 1)
        received = torch.empty_like(sent)
        self.stored = 0
        self.collective(lambda: dist.all_to_all_single(received, sent))
        first, *others = received.view(-1, self.stretch)
        for other in others:
            first.add_(other)
        self.collective(lambda: dist.all_gather(list(self.sum.chunk(self.count)), first))
        flags = self.sum[self.length : self.length + len(self.weights)].tolist()
        for weight, part, flag in zip(self.weights, self.parts(self.sum), flags, strict=True):
            weight.grad = part if flag > 0 else None

    def parts(self, row: Tensor) -> list[Tensor]:
        """Views of a row, one for each weight, with its shape and memory layout."""
        views, offset = [], row.storage_offset()
        for weight in self.weights:
            views.append(row.as_strided(weight.shape, weight.stride(), offset))
            offset += weight.numel()
        return views
