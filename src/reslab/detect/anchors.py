"""The reference boxes of the region proposal network (Faster R-CNN, Sec. 3.1.1)."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

GRAIN = 16  # the released code rounds the sides of its shapes to sixteenths of the size


@dataclass(frozen=True)
class Anchors:
    """Boxes of some sizes and shapes around the centre of each cell of a feature map.

    The centre of the first cell lies at stride / 2, as in the released code: its first anchors,
    [-84, -40, 99, 55] and so on, are these with inclusive corners.
    """

    sizes: tuple[float, ...] = (128, 256, 512)  # square roots of the areas, in pixels
    ratios: tuple[float, ...] = (0.5, 1, 2)  # of height to width
    stride: int = 16  # of a cell

    @property
    def per_cell(self) -> int:
        return len(self.sizes) * len(self.ratios)

    def shapes(self) -> Tensor:
        """Those of one cell around (0, 0): for each ratio all sizes, [A, 4]."""
        sides = []
        for ratio in self.ratios:
            across = round(sqrt(GRAIN**2 / ratio))  # of a square of 16: 23x12, 16x16, 11x22
            down = round(across * ratio)
            sides += [(across * size / GRAIN, down * size / GRAIN) for size in self.sizes]
        half = torch.tensor(sides) / 2  # [A, 2]
        return torch.cat([-half, half], 1)

    def over(self, height: int, width: int) -> Tensor:
        """Those of a feature map [.., height, width], row by row, in each cell as in `shapes`.

        -> [height * width * A, 4]
        """
        y, x = ((torch.arange(cells) + 0.5) * self.stride for cells in (height, width))
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)  # [height, width, 2]
        return (centres.repeat(1, 1, 2)[:, :, None] + self.shapes()).reshape(-1, 4)


def inside(anchors: Tensor, width: float, height: float) -> Tensor:
    """Which do not cross the border of the picture, [N, 4] -> bool [N]."""
    x0, y0, x1, y1 = anchors.unbind(1)
    return (x0 >= 0) & (y0 >= 0) & (x1 <= width) & (y1 <= height)
