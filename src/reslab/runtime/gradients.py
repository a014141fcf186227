"""Sum gradients over the shares of a mini-batch, always in the order of the shares.

A share is the part of a mini-batch for one virtual GPU. A floating-point sum depends on its order.
In one process, backward itself adds share by share; several processes store the gradients of each
share separately and add them in the same order.
"""

from collections.abc import Callable, Sequence
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor, nn


@final
class InPlace:
    """Sum in one process: backward adds to `.grad`."""

    def store(self) -> None:
        """Store a share's gradients after its backward pass; a no-op, as `.grad` has them."""

    def reduce(self) -> None:
        """Set every `.grad` to the sum over all shares of all processes; a no-op here too."""


@final
class OrderedReduce:
    """Sum over several processes, each with the same number of shares.

    Each process sums one slice of the weights over all shares and sends it to the others. With one
    share per process this transfers as many bytes as a ring all-reduce, but sums in a fixed order.
    """

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        count: int,
        collective: Callable[[Callable[[], object]], None],
    ) -> None:
        self.weights, self.count, self.collective = weights, count, collective
        self.length = sum(weight.numel() for weight in weights)
        # a row ends with one flag per weight: 1 if it has a gradient; optimizers skip the others
        self.slice_length = -(-(self.length + len(weights)) // count)
        self.sum = self.new_row()
        self.rows: list[Tensor] = []  # one per share
        self.stored = 0

    def new_row(self) -> Tensor:
        return self.weights[0].detach().new_empty(self.count * self.slice_length)

    def store(self) -> None:
        if self.stored == len(self.rows):
            self.rows.append(self.new_row())
        row = self.rows[self.stored]
        self.stored += 1
        row.fill_(-0.0)  # adding -0 leaves every number unchanged
        for number, (weight, part) in enumerate(zip(self.weights, self.parts(row), strict=True)):
            if weight.grad is not None:
                part.copy_(weight.grad)
                row[self.length + number] = 1
                weight.grad = None

    def reduce(self) -> None:
        sent = torch.stack([row.view(self.count, -1) for row in self.rows[: self.stored]], 1)
        received = torch.empty_like(sent)
        self.stored = 0
        self.collective(lambda: dist.all_to_all_single(received, sent))
        first, *others = received.view(-1, self.slice_length)
        for other in others:
            first.add_(other)
        self.collective(lambda: dist.all_gather(list(self.sum.chunk(self.count)), first))
        flags = self.sum[self.length : self.length + len(self.weights)].tolist()
        for weight, part, flag in zip(self.weights, self.parts(self.sum), flags, strict=True):
            weight.grad = part if flag > 0 else None

    def parts(self, row: Tensor) -> list[Tensor]:
        """Return views of a row, one per weight, with the weight's shape and memory layout."""
        views, offset = [], row.storage_offset()
        for weight in self.weights:
            views.append(row.as_strided(weight.shape, weight.stride(), offset))
            offset += weight.numel()
        return views
