"""The images a run began with: recorded in its folder, and compared when it is resumed."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import numpy as np
import torch
from torch import Tensor

from reslab.data.boxes.sets import DetectionSet, DetectionSplits, GroundTruthTable
from reslab.data.class_names import ClassIndex
from reslab.data.copies import AnyFiles, Copies, file_sizes, find_copies
from reslab.data.datasets import EncodedImages, FolderSplits, ImagesInMemory, MemorySplits
from reslab.data.left_out import count_of, shorten
from reslab.data.location import Location
from reslab.runtime.events import Log
from reslab.runtime.files import TensorFile
from reslab.training.folder import RunFolder

DATA_FILE = "data.safetensors"  # in a run folder
DIGEST_BYTES = 8  # with 4 bytes for its content, an image takes 12: ImageNet 16 MB
# odd factors, whose products with small numbers differ in the upper half
MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
MOST_COPIED = 100_000  # images; copies are not sought in larger sets, which take long to read

AnySplits = MemorySplits | FolderSplits | DetectionSplits


@dataclass(frozen=True)
class PartRecord:
    """Digests of the images in one part, in the order of the set."""

    names: np.ndarray  # int64 [N], of the file names
    contents: np.ndarray  # int32 [N], mixed from size and label, or size and boxes


@dataclass(frozen=True)
class DataRecord:
    """The classes, in order, and the images of a run's training and test sets."""

    classes: tuple[str, ...]
    train: PartRecord
    test: PartRecord
    count: int  # of training images; for a detector, of those with objects

    def to_bytes(self) -> bytes:
        """Encode the record for the run folder."""
        tensors = {}
        for name, part in (("train", self.train), ("test", self.test)):
            tensors[f"{name}.names"] = torch.from_numpy(part.names)
            tensors[f"{name}.contents"] = torch.from_numpy(part.contents)
        return TensorFile(tensors, {"classes": self.classes, "count": self.count}).to_bytes()


def read_record(folder: Path) -> DataRecord | None:
    """Read the record in a run folder; return None if there is none, as in the first edition."""
    file = folder / DATA_FILE
    if not file.exists():
        return None
    try:
        content = TensorFile.read(file)
        classes = tuple(map(str, content.facts["classes"]))
        parts = _part(content.tensors, "train"), _part(content.tensors, "test")
        return DataRecord(classes, *parts, int(content.facts["count"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged ({error}); delete it to resume without comparing the images"
        ) from None


def _part(tensors: dict[str, Tensor], name: str) -> PartRecord:
    names, contents = (tensors[f"{name}.{column}"].numpy() for column in ("names", "contents"))
    if names.shape != contents.shape or (names.dtype, contents.dtype) != (np.int64, np.int32):
        raise ValueError(f"its {name} columns differ in shape or type")
    return PartRecord(names, contents)


def examine_data(
    sets: AnySplits, folder: RunFolder | None, place: Location | None, log: Log
) -> bytes:
    """Return the record of a run's images, and log what affects its result.

    For a new run, whose `folder` is None, these are copies of images in both parts or in two
    classes; `place` is the opened folder. For an existing run it is a change of its images. The
    record of images in memory is empty. Raise ValueError if the classes have changed.
    """
    train, test = sets.train, sets.test
    if isinstance(train, ImagesInMemory) or isinstance(test, ImagesInMemory):
        return b""
    then = read_record(folder.path) if folder else None
    if folder and then:
        must_have_classes(folder.path, then.classes, classes_of(train))
    sizes = file_sizes(train), file_sizes(test)
    now = record_of(train, test, sizes)
    if then and (changes := image_changes(then, now)):
        log(f"not bit-exact from here on, the images differ: {changes}")
    if folder is None and len(train) + len(test) <= MOST_COPIED:
        for line in copies_in_words(find_copies(train, test, np.concatenate(sizes)), place):
            log(line)
    return now.to_bytes()


def record_of(train: AnyFiles, test: AnyFiles, sizes: Sequence[np.ndarray]) -> DataRecord:
    """Return the record of a run's sets, whose files have the `sizes` of each part."""
    parts = record_part(train, sizes[0]), record_part(test, sizes[1])
    return DataRecord(classes_of(train), *parts, training_count(train))


def changes_since(out: Path, sets: AnySplits) -> str:
    """Return how the images differ from those that the run in `out` began with; "" if unknown."""
    train, test, then = sets.train, sets.test, read_record(out)
    if then is None or isinstance(train, ImagesInMemory) or isinstance(test, ImagesInMemory):
        return ""
    return image_changes(then, record_of(train, test, (file_sizes(train), file_sizes(test))))


def training_count(train: AnyFiles) -> int:
    """Return the number of images to train on; a detector needs objects in them."""
    if isinstance(train, EncodedImages):
        return len(train)
    truths = train.truths
    if isinstance(truths, GroundTruthTable):
        before = np.concatenate([[0], truths.objects.trainable.numpy().cumsum()])
        return int((np.diff(before[truths.starts.numpy()]) > 0).sum())
    return sum(bool(truth.trainable.any()) for truth in truths)


def recorded_count(out: Path) -> int | None:
    """Return the number of training images that the run in `out` began with, if it is known."""
    record = read_record(out)
    return record.count if record else None


def must_have_known_classes(out: Path, classes: Sequence[str]) -> None:
    """Raise ValueError if the run in `out`, if there is one, began with other classes.

    This comes before a comparison of recipes, because own-* recipes have the number of classes.
    """
    if then := read_record(out):
        must_have_classes(out, then.classes, classes)


def classes_of(images: AnyFiles) -> tuple[str, ...]:
    """Return the names that identify a set's classes: of its folders, or of its objects."""
    return images.ids if isinstance(images, EncodedImages) else images.classes


def must_have_classes(out: Path, then: Sequence[str], now: Sequence[str]) -> None:
    """Raise ValueError if the classes are not those that the run in `out` began with."""
    then, now = tuple(then), tuple(now)
    if then == now:
        return
    positions = ClassIndex(then).match([(name,) for name in now])
    if positions == list(range(len(then))):  # another spelling, such as NFD
        return
    new = [name for name, position in zip(now, positions, strict=True) if position < 0]
    gone = [name for position, name in enumerate(then) if position not in positions]
    differences = [
        f"{shorten(map(repr, names))} {'is' if len(names) == 1 else 'are'} {what}"
        for names, what in ((new, "new"), (gone, "gone"))
        if names
    ]
    if not differences:
        differences = [f"the order was {shorten(then)}, and is {shorten(now)}"]
    raise ValueError(
        f"{out} began with other classes: {', '.join(differences)}; restore the classes, or train "
        "into a new folder"
    )


def record_part(images: AnyFiles, sizes: np.ndarray) -> PartRecord:
    """Return the digests of a set's images, whose files have these sizes."""
    names = [_digest(os.fsencode(normalize("NFC", file))) for file in images.files]
    labels = (
        images.labels.numpy().astype(np.int64)
        if isinstance(images, EncodedImages)
        else np.frombuffer(b"".join(_box_digests(images)), np.int64)
    )
    mixed = sizes.astype(np.uint64) * MIXERS[0] + labels.astype(np.uint64) * MIXERS[1]
    return PartRecord(
        np.frombuffer(b"".join(names), "<i8").astype(np.int64),
        (mixed >> np.uint64(32)).astype(np.uint32).view(np.int32),
    )


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def _box_digests(images: DetectionSet) -> Iterator[bytes]:
    """Yield a digest of the boxes and labels in each image."""
    truths = images.truths
    if isinstance(truths, GroundTruthTable):
        starts = truths.starts.tolist()
        boxes, labels = truths.objects.boxes.numpy(), truths.objects.labels.numpy()
        for start, end in pairwise(starts):
            yield _digest(boxes[start:end].tobytes() + labels[start:end].tobytes())
        return
    for truth in truths:
        yield _digest(truth.boxes.numpy().tobytes() + truth.labels.numpy().tobytes())


def image_changes(then: DataRecord, now: DataRecord) -> str:
    """Return "1 added, 2 gone" and the like; "" if the images are the same, in the same order."""
    parts = (then.train, now.train), (then.test, now.test)
    if all(
        np.array_equal(old.names, new.names) and np.array_equal(old.contents, new.contents)
        for old, new in parts
    ):
        return ""
    added, gone, changed = [], [], 0
    for old, new in parts:
        added.append(np.setdiff1d(new.names, old.names))
        gone.append(np.setdiff1d(old.names, new.names))
        _, before, after = np.intersect1d(old.names, new.names, return_indices=True)
        changed += int((old.contents[before] != new.contents[after]).sum())
    moved = len(np.intersect1d(gone[0], added[1])) + len(np.intersect1d(gone[1], added[0]))
    numbers = {
        "added": sum(map(len, added)) - moved,
        "gone": sum(map(len, gone)) - moved,
        "moved between training and validation": moved,
        "changed": changed,
    }
    words = [f"{number:,} {what}" for what, number in numbers.items() if number]
    return ", ".join(words) or "in another order"


def copies_in_words(copies: Copies, place: Location | None) -> list[str]:
    """Return a line for each kind of copies that spoils a result; `place` is the opened folder."""
    root = (place if place.is_dir() else place.parent) if isinstance(place, Path) else None
    kinds = (
        (copies.in_both, "of the validation set also in training", "its error is too low"),
        (copies.two_labels, "in two classes", "their labels cannot all be right"),
    )
    lines = []
    for pairs, where, effect in kinds:
        if pairs:
            file, other = (os.path.relpath(path, root) if root else path for path in pairs[0])
            line = f"{count_of(len(pairs), 'image')} {where}, such as {file} and {other}: {effect}"
            lines.append(f"{line}; `reslab check {place}` lists them" if root else line)
    return lines
