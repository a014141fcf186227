"""Bad files in training: another picture stands in for each, as long as they are few."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from reslab.data.decode import BadPicture


class StandIns(Protocol):
    """Which pictures may be shown in the place of one."""

    def __call__(self, index: int) -> Iterator[int]:
        """The picture itself, then what stands in for it, the next best each time."""
        ...

    def failure(self, index: int) -> str:
        """What it means that all of them are bad."""
        ...


@dataclass(frozen=True)
class SameClass:
    """The others of a picture's class, from the next one round."""

    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]

    def __call__(self, index: int) -> Iterator[int]:
        yield index
        of_class = (self.labels == self.labels[index]).nonzero()[:, 0]
        after, before = of_class[of_class > index], of_class[of_class < index]
        yield from after.tolist()
        yield from before.tolist()

    def failure(self, index: int) -> str:
        return f"no picture of class {self.classes[int(self.labels[index])]!r} can be decoded"


class Replaced:
    """Pictures by index, the bad ones replaced; a function of the set alone.

    Any thread may call it. What was found bad is remembered, and not read again.
    """

    def __init__(self, picture: Callable[[int], np.ndarray], stand_ins: StandIns) -> None:
        self.picture, self.stand_ins = picture, stand_ins
        self.reasons: dict[int, str] = {}  # of the bad pictures

    def __call__(self, index: int) -> tuple[np.ndarray, int, list[int]]:
        """RGB bytes [H, W, 3], whose they are, and which pictures proved bad on the way to them."""
        bad = []
        for candidate in self.stand_ins(index):
            if candidate not in self.reasons:
                try:
                    return self.picture(candidate), candidate, bad
                except (BadPicture, OSError) as error:  # a caller's own reader may raise the latter
                    self.reasons[candidate] = str(error)
            bad.append(candidate)
        raise ValueError(
            f"{self.stand_ins.failure(index)}, for one: {self.reasons[index]}; "
            "`reslab check FOLDER` lists them"
        )


class BadFiles:
    """Those met so far in a set: each is told of once, and too many are an error."""

    def __init__(self, count: int, limit: float, tell: Callable[[str], None]) -> None:
        self.count, self.limit, self.tell = count, limit, tell
        self.told: set[int] = set()

    @property
    def most(self) -> int:
        """How many are let pass: one in a set of any size, if any is."""
        return int(max(self.limit * self.count, self.limit > 0))

    def note(self, bad: Iterable[int], reasons: Mapping[int, str]) -> None:
        for index in bad:
            if index not in self.told:
                self.told.add(index)
                self.tell(f"skipped {reasons[index]}")
        if len(self.told) > self.most:
            raise ValueError(f"{self.too_many(len(self.told))}; `reslab check FOLDER` lists them")

    def too_many(self, bad: int) -> str:
        return (
            f"{bad:,} of {self.count:,} pictures cannot be used, and "
            f"bad_limit is {self.limit:g} of them"
        )
