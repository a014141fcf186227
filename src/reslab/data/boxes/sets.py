"""Ground truth and detections in an image, and sets of images with boxes.

Boxes [N, 4] are corners x0 y0 x1 y1 in pixels. x1 and y1 are exclusive: a width is x1 - x0, and the
box of the first pixel is 0 0 1 1. A COCO box x y w h becomes x y x+w y+h; a VOC box, with pixels
counted from 1 and inclusive ends, becomes xmin-1 ymin-1 xmax ymax.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from torch import Tensor

from reslab.data.datasets import Splits
from reslab.data.decode import BadImage, ScaledImage, load_scaled

UNKNOWN_SIZE = (0, 0)  # of an image whose size is not annotated, and cannot be read


@dataclass(frozen=True)
class GroundTruth:
    """The annotated objects in one image."""

    boxes: Tensor  # float32 [N, 4], xyxy in pixels of the image
    labels: Tensor  # int64 [N], indices into the classes of the set
    difficult: Tensor  # bool [N], VOC: ignored in the evaluation
    crowd: Tensor  # bool [N], COCO: one box around many objects; ignored in the evaluation
    areas: Tensor | None = None  # float32 [N], COCO: of the outlines; None: the boxes' areas
    truncated: Tensor | None = None  # bool [N], VOC: the object extends beyond its box

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def trainable(self) -> Tensor:
        """A mask of the objects to train on, bool [N]: all but difficult objects and crowds.

        VOC's difficult objects count as background, as in the released code; crowds are ignored.
        """
        return ~(self.difficult | self.crowd)

    def take(self, indices: Tensor) -> "GroundTruth":
        """Return the objects at `indices`, which are integers or a boolean mask."""
        columns = {name: column for name, column in vars(self).items() if column is not None}
        return GroundTruth(**{name: column[indices] for name, column in columns.items()})


@dataclass(frozen=True)
class Detections:
    """The detections in one image."""

    boxes: Tensor  # float32 [N, 4], xyxy in pixels of the image
    scores: Tensor  # float32 [N]
    labels: Tensor  # int64 [N], indices into the classes of the model

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Detections":
        """Return the detections at `indices`, which are integers or a boolean mask."""
        return Detections(self.boxes[indices], self.scores[indices], self.labels[indices])

    def scaled(self, across: float, down: float) -> "Detections":
        """Return the detections in an image that is enlarged by two factors."""
        if across == down == 1:
            return self
        return replace(self, boxes=self.boxes * torch.tensor([across, down] * 2))


class GroundTruthTable(Sequence[GroundTruth]):
    """The ground truth for many images in one table, with objects in the order of the images."""

    def __init__(self, objects: GroundTruth, counts: Sequence[int] | np.ndarray) -> None:
        """Build a table from all objects and the number of objects in each image."""
        ends = np.cumsum(counts, dtype=np.int64)
        assert len(objects) == (ends[-1] if len(ends) else 0)
        self.objects = objects
        self.starts = torch.from_numpy(np.concatenate(([0], ends)))  # int64 [images + 1]

    def have_objects(self) -> Tensor:
        """Return which images have an object that is neither difficult nor a crowd, bool [N]."""
        usable = ~(self.objects.difficult | self.objects.crowd)
        before = torch.cat((torch.zeros(1, dtype=torch.int64), usable.cumsum(0)))[self.starts]
        return before[1:] > before[:-1]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> GroundTruth: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[GroundTruth]: ...
    def __getitem__(self, index: int | slice) -> GroundTruth | Sequence[GroundTruth]:
        rows = range(len(self))[index]  # handles negative indices, raises IndexError
        if isinstance(rows, range):
            return [self[row] for row in rows]
        first, end = self.starts[rows : rows + 2].tolist()
        return self.objects.take(torch.arange(first, end))

    def take(self, rows: Tensor) -> "GroundTruthTable":
        """Return the images at `rows` as a new table."""
        counts = self.starts.diff()[rows]
        firsts = self.starts[rows] - (counts.cumsum(0) - counts)
        objects = firsts.repeat_interleave(counts) + torch.arange(int(counts.sum()))
        return GroundTruthTable(self.objects.take(objects), counts.numpy())


@dataclass(frozen=True)
class DetectionSet:
    """Encoded images with annotated boxes, read on demand."""

    name: str  # "train", "validation", "test", or the name of its folder
    files: Sequence[str]  # one per image, relative to the root of the set
    truths: Sequence[GroundTruth]  # one per image; of length 0 for an image without objects
    classes: tuple[str, ...]  # names for display
    ids: tuple[str, ...]  # of the classes, as annotated: COCO's category ids, VOC's names
    read: Callable[[str], bytes]  # maps one of `files` to its bytes; thread-safe
    sizes: Sequence[tuple[int, int]]  # width and height of each image, as annotated
    keys: Sequence[int | str]  # the images' keys in annotations and results: COCO's image ids
    notes: tuple[str, ...] = ()  # what was left out or assumed, one line each

    def __len__(self) -> int:
        return len(self.files)

    def take(self, name: str, indices: Tensor) -> "DetectionSet":
        """Return the images at `indices` as a new set."""
        rows, truths = indices.tolist(), self.truths
        is_table = isinstance(truths, GroundTruthTable)
        return replace(
            self,
            name=name,
            files=[self.files[row] for row in rows],
            truths=truths.take(indices) if is_table else [truths[row] for row in rows],
            sizes=[self.sizes[row] for row in rows],
            keys=[self.keys[row] for row in rows],
        )

    def image(self, index: int) -> np.ndarray:
        """Decode an image, RGB uint8 [H, W, 3]; a very large one is reduced."""
        return self.scaled_image(index).pixels

    def scaled_image(self, index: int) -> ScaledImage:
        """Decode an image; its boxes are in pixels of its full size.

        Raise BadImage if it cannot be decoded, or if its size is not as annotated, because the
        boxes would not fit.
        """
        file = self.files[index]
        image = load_scaled(self.read(file), file)
        width, height = image.width, image.height
        if tuple(self.sizes[index]) not in ((width, height), UNKNOWN_SIZE):
            wide, high = self.sizes[index]
            reason = f"{width} x {height} pixels, but annotated as {wide} x {high}"
            if (high, wide) == (width, height):
                reason += ", its size before the EXIF rotation"
            raise BadImage(f"{file}: {reason}")
        return image


DetectionSplits = Splits[DetectionSet]


def notes_of_splits(sets: DetectionSplits) -> tuple[str, ...]:
    """Return the notes of both splits, each once."""
    return tuple(dict.fromkeys((*sets.train.notes, *sets.test.notes)))
