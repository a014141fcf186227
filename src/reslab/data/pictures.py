"""Pictures as encoded files with their labels, read and decoded one at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from reslab.data.decode import decode

EXPECTED = 512  # pictures that a set hears of before they are read


@dataclass(frozen=True)
class PictureSet:
    """Encoded pictures of any size and format; nothing of them is in memory."""

    name: str  # "train", "validation", or what its folder is called
    files: Sequence[str]  # what each picture is called, relative to the root of its set
    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]  # names for people
    ids: tuple[str, ...]  # the names of the subfolders: wnids for ImageNet
    read: Callable[[str], bytes]  # a file's name to its bytes; any thread may call it
    # hears the names of pictures that will be read soon; None: there is nothing to prepare
    expect: Callable[[Sequence[str]], None] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, name: str, indices: Tensor) -> "PictureSet":
        """The pictures at `indices` as a set of its own."""
        files = [self.files[index] for index in indices.tolist()]
        return replace(self, name=name, files=files, labels=self.labels[indices])

    def picture(self, index: int) -> np.ndarray:
        """RGB bytes [H, W, 3]; BadPicture says which file is bad, and why."""
        return decode(self.read(self.files[index]), self.files[index])

    def announced(self, indices: Iterable[int]) -> Iterator[int]:
        """The same indices; the set hears of each some time before it is taken."""
        if self.expect is None:
            yield from indices
            return
        coming: deque[int] = deque()
        for index in indices:
            self.expect([self.files[index]])
            coming.append(index)
            if len(coming) > EXPECTED:
                yield coming.popleft()
        yield from coming
