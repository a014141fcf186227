"""Bad files in training: the next good picture of the same class stands in for each."""

from collections.abc import Iterator

import numpy as np

from reslab.data.decode import BadPicture
from reslab.data.pictures import PictureSet


class Replaced:
    """Pictures by index, whatever does not decode replaced; a function of the set alone.

    Any thread may call it. What was found bad is remembered, and not read again.
    """

    def __init__(self, pictures: PictureSet) -> None:
        self.pictures = pictures
        self.reasons: dict[int, str] = {}  # of the pictures that do not decode

    def __call__(self, index: int) -> tuple[np.ndarray, list[int]]:
        """RGB bytes [H, W, 3], and which pictures proved bad on the way to them."""
        bad = []
        for candidate in self._candidates(index):
            if candidate not in self.reasons:
                try:
                    return self.pictures.picture(candidate), bad
                except BadPicture as error:
                    self.reasons[candidate] = str(error)
            bad.append(candidate)
        name = self.pictures.classes[int(self.pictures.labels[index])]
        raise ValueError(
            f"no picture of class {name!r} can be decoded, for one: {self.reasons[index]}; "
            "`reslab check FOLDER` lists them"
        )

    def _candidates(self, index: int) -> Iterator[int]:
        """The picture itself, then the others of its class, from the next one round."""
        yield index
        labels = self.pictures.labels
        of_class = (labels == labels[index]).nonzero()[:, 0]
        after, before = of_class[of_class > index], of_class[of_class < index]
        yield from after.tolist()
        yield from before.tolist()
