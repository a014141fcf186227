"""Open arrays of images and labels as a set: x_train and y_train, images and labels, and the like.

The meaning of an array is recognised by the words of its name, as in `train_images`, `XVal` or
`test/y`. An array without such words, such as `arr_0`, is recognised by its shape, if only one
fits.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from reslab.data.array_sets.files import KINDS, StoredArray, array_files, stored_arrays
from reslab.data.array_sets.images import ArrayReader, ImageArray, image_names, open_images
from reslab.data.array_sets.labels import named_classes, read_labels, read_names
from reslab.data.class_list import arrange_classes
from reslab.data.datasets import EncodedImages
from reslab.data.labels.folder import LabelledFolder
from reslab.data.left_out import shorten
from reslab.data.part_names import Part, part_of_name, without_part
from reslab.data.parts import WHOLE_FOLDER

Role = Literal["images", "labels", "names", "classes"]

IMAGES = {
    "x",
    "xs",
    "image",
    "images",
    "img",
    "imgs",
    "data",
    "photo",
    "photos",
    "pixels",
}
LABELS = {"y", "ys", "label", "labels", "lbl", "lbls", "target", "targets", "class"}
NAMES = {"name", "names", "classnames", "categories"}
# `xtrain`, `Xte` and the like, as words of their own
GLUED = re.compile(r"(?i)(?<![^\W\d_])([xy])_?(train|test|val|valid|dev|tr|te|va)(?![^\W\d_])")
SHORT = {"tr": "train", "te": "test", "va": "val"}
EXPECTED = "expected x_train and y_train, or images and labels"


@dataclass(frozen=True)
class Pair:
    """The images and the labels of a part."""

    images: StoredArray
    labels: StoredArray

    @property
    def source(self) -> str:
        """The names of both arrays, for messages."""
        files = {str(array.file) for array in (self.images, self.labels)}
        where = f" of {files.pop()}" if len(files) == 1 else ""
        return f"{self.images.name} and {self.labels.name}{where}"


def open_arrays(place: Path, names: Path | None) -> LabelledFolder | None:
    """Open the arrays in a file or folder; return None if `place` is something else.

    `names` is a class list to use instead of names in an array. Raise ValueError, naming the file
    and the array, if the arrays are not certainly images with labels.
    """
    files = array_files(place)
    if not files:
        return None
    arrays, others = stored_arrays(place, files)
    group = Group(place, arrays)
    pairs = group.pairs()
    parts: dict[str, EncodedImages] = {}
    notes: list[str] = []
    for part, pair in pairs.items():
        if role_of(pair.images.path) is None or role_of(pair.labels.path) is None:
            notes.append(f"{pair.source} are read as images and labels, by their shapes")
        array, note = open_images(pair.images)
        notes += [note] if note else []
        images = build_set(part, place, pair, array, group.class_names)
        images = arrange_classes(images, place, names) if names else images
        parts[part] = replace(images, source=pair.source)
    if left_out := group.unused(pairs.values()) + others:
        notes.append(f"not read in {place}: {shorten(left_out)}")
    return LabelledFolder(place, parts, tuple(notes))


def build_set(
    part: str, place: Path, pair: Pair, array: ImageArray, class_names: StoredArray | None
) -> EncodedImages:
    """Build the set of one part; its images are read through `array`."""
    values = read_labels(pair.labels, len(array))
    names = read_names(class_names) if class_names else ()
    ids, classes, positions = named_classes(pair.labels, values, names, str(class_names))
    return EncodedImages(
        place.resolve().stem if part == WHOLE_FOLDER else part,
        image_names(pair.images),
        torch.tensor(positions),
        tuple(classes),
        tuple(ids),
        ArrayReader({pair.images.name: array}),
    )


class Group:
    """The arrays of a set, and what each is for."""

    def __init__(self, place: Path, arrays: Sequence[StoredArray]) -> None:
        self.place, self.arrays = place, arrays
        self.class_names = self._class_names()

    def pairs(self) -> dict[str, Pair]:
        """Return the pairs to read, keyed by part; raise ValueError if they are ambiguous."""
        train, validation, test = map(self._pair, ("train", "validation", "test"))
        tested = validation or test
        has_whole = any(role_of(array.path) == "images" for array in self._members(None))
        whole = None
        if train is None and (tested is None or has_whole):
            whole = self._pair(None)
        if tested is None:
            pairs = {"train": train, WHOLE_FOLDER: whole}
        else:
            pairs = {"train": train or whole, "validation": tested}
        chosen = {part: pair for part, pair in pairs.items() if pair}
        if not chosen:
            listed = shorten(array.described for array in self.arrays)
            raise ValueError(f"{self.place} has no images with labels: {EXPECTED}, not {listed}")
        return chosen

    def unused(self, pairs: Iterable[Pair]) -> list[str]:
        """Return the names of the arrays that are not read."""
        used = [array for pair in pairs for array in (pair.images, pair.labels)]
        return [
            array.name
            for array in self.arrays
            if array is not self.class_names and not any(array is one for one in used)
        ]

    def _members(self, part: Part | None) -> list[StoredArray]:
        return [array for array in self.arrays if part_of_path(array.path) == part]

    def _pair(self, part: Part | None) -> Pair | None:
        """Return the images and labels of a part; None if it has none, or is an unlabelled test."""
        members = self._members(part)
        images = _select(members, "images", 1, 5) or _select(members, None, 3, 4, "buif")
        images = [array for array in images if len(array.shape) > 1 or array.dtype.hasobject]
        if not images:
            return None
        labels = _select(members, "labels", 1, 3) or _select(members, None, 1, 2, KINDS)
        classes = _select(members, "classes", 1, 2)  # labels, unless they are names
        labels = labels or [array for array in classes if array is not self.class_names]
        if not labels and part in ("validation", "test"):
            return None
        if not labels:
            raise ValueError(f"{images[0]} has no labels: {EXPECTED}, one label per image")
        pairs = [Pair(x, y) for x in images for y in labels if x.shape[0] == y.shape[0]]
        if not pairs:
            raise ValueError(lengths_in_words(images[0], labels[0]))
        if len(pairs) > 1:
            listed = shorten(array.described for array in (*images, *labels))
            raise ValueError(
                f"{self.place} has several arrays for {part or 'one'} part: {listed}; keep one of "
                "images and one of labels"
            )
        return pairs[0]

    def _class_names(self) -> StoredArray | None:
        """Return the array with the names of the classes: text that is not one per image."""
        counts = {array.shape[0] for array in self.arrays if len(array.shape) > 2}
        listed = [*_select(self.arrays, "names", 1, 2), *_select(self.arrays, "classes", 1, 2)]
        texts = [array for array in listed if array.dtype.kind in "US"]
        return next((array for array in texts if math.prod(array.shape) not in counts), None)


def _select(
    arrays: Iterable[StoredArray], role: Role | None, least: int, most: int, kinds: str = ""
) -> list[StoredArray]:
    """Return the arrays with a role and a number of dimensions from `least` to `most`."""
    return [
        array
        for array in arrays
        if role_of(array.path) == role
        and least <= len(array.shape) <= most
        and (not kinds or array.dtype.kind in kinds)
    ]


def lengths_in_words(images: StoredArray, labels: StoredArray) -> str:
    """Return the message for another number of labels than images."""
    count = labels.shape[0]
    last = ""
    if count in images.shape[1:]:
        axis = images.shape.index(count)
        last = f"; to have the images first, save np.moveaxis(images, {axis}, 0)"
    return (
        f"{images} has the shape {list(images.shape)}, but {labels.name} has {count:,} labels{last}"
    )


def part_of_path(path: Sequence[str]) -> Part | None:
    """Return the part that an array's name says it belongs to, or else its file or folder."""
    parts = (part_of_name(_spelled(name)) for name in reversed(path))
    return next((part for part in parts if part), None)


def role_of(path: Sequence[str]) -> Role | None:
    """Return what the words of an array's name say it is for, or else those of its file."""
    for name in reversed(path):
        words = set(without_part(_spelled(name)))
        if words & NAMES:
            return "names"
        if "classes" in words:
            return "names" if words & LABELS else "classes"
        if words & LABELS:
            return "labels"
        if words & IMAGES:
            return "images"
    return None


def _spelled(name: str) -> str:
    """Return a name with its words set apart and written in full: `Xtr` is "X_train"."""
    apart = GLUED.sub(r"\1_\2", name)
    words = re.split(r"([\W\d_]+)", apart)
    return "".join(SHORT.get(word.lower(), word) for word in words)
