"""Pictures as encoded files with their labels, read and decoded one at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from reslab.data.decode import decode


@dataclass(frozen=True)
class PictureSet:
    """Encoded pictures of any size and format; nothing of them is in memory."""

    name: str  # "train", "validation", or what its folder is called
    files: Sequence[str]  # what each picture is called, relative to the root of its set
    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]  # names for people
    ids: tuple[str, ...]  # the names of the subfolders: wnids for ImageNet
    read: Callable[[str], bytes]  # a file's name to its bytes; any thread may call it

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, name: str, indices: Tensor) -> "PictureSet":
        """The pictures at `indices` as a set of its own."""
        files = [self.files[index] for index in indices.tolist()]
        return replace(self, name=name, files=files, labels=self.labels[indices])

    def picture(self, index: int) -> np.ndarray:
        """RGB bytes [H, W, 3]; BadPicture says which file is bad, and why."""
        return decode(self.read(self.files[index]), self.files[index])
