"""Testing protocols as values: what a network is shown of one picture."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OneCrop:
    """One view; for pictures of the net's own size (CIFAR, digits) the picture itself."""

    def __str__(self) -> str:
        return "one-crop"
