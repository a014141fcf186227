"""A run with a network, images and an optimizer of one's own, small enough to train in a second.

    python -m tests.training.own FOLDER ITERATION

trains it into FOLDER, and kills its own process between backward and step of an iteration, once
the newest checkpoint is on disk.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tests.waiting import wait_until
from torch import Tensor, nn

from reslab.data.arrays import image_set
from reslab.data.datasets import ImagesInMemory, MemorySplits, Splits
from reslab.recipes import recipe
from reslab.training.checkpoint import checkpoint_name
from reslab.training.loop import Observer
from reslab.training.own import OwnParts
from reslab.training.recipe import Recipe
from reslab.training.run import Stop
from reslab.training.train import train

CLASSES = ("dark", "grey", "bright")
RECIPE = recipe("digits-resnet20").with_(
    {"model.classes": 3}, iterations=12, warmup=None, eval_every=5, checkpoint_every=4,
    recompute_bn=2, batch_size=8, precision="fp32", log_every=3,
)  # fmt: skip


class Net(nn.Module):
    """A network with a random layer of torch's, whose numbers come from a global generator."""

    def __init__(self, width: int = 6, seed: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, stride=2)
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(width, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        x = self.dropout(self.second(x).relu())
        return self.fc(x.mean((2, 3)))


def some_images(count: int, seed: int, name: str) -> ImagesInMemory:
    """Grey images of 8x8, whose brightness is their class."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 80, (count, 8, 8), generator=rng)
    return image_set((noise + 80 * labels[:, None, None]).byte(), labels, CLASSES, name)


def sets() -> MemorySplits:
    return Splits(some_images(40, 0, "lamps"), some_images(20, 1, "test"))


def adamw(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99), weight_decay=0.05)


def parts(**changes: Any) -> OwnParts:
    return replace(OwnParts(Net(), sets(), adamw), **changes)


def run(
    out: Path,
    own: OwnParts | None = None,
    recipe: Recipe = RECIPE,
    *,
    stop: Stop = lambda: None,
    observer: Observer | None = None,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
) -> dict[str, Any]:
    """Train with new parts, which a resumed run is given too."""
    own = parts() if own is None else own
    return train(recipe, out, own=own, stop=stop, observer=observer, on_event=on_event)


if __name__ == "__main__":
    out, last = Path(sys.argv[1]), int(sys.argv[2])
    due = RECIPE.checkpoint_every

    def kill(iteration: int, net: nn.Module) -> None:
        if iteration == last:
            if saved := (iteration - 1) // due * due:
                wait_until((out / "checkpoints" / checkpoint_name(saved)).exists)
            os.kill(os.getpid(), signal.SIGKILL)

    run(out, observer=kill)
