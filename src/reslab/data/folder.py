"""Open folders of images to classify; each split is packed or has one subfolder per class."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reslab.data.class_folders import (
    FolderReader,
    OnProblem,
    Problem,
    class_files,
    class_ids,
    images_by_class,
    refuse,
    subfolders,
)
from reslab.data.class_names import ClassIndex
from reslab.data.datasets import (
    EncodedImages,
    FolderSplits,
    Splits,
    align_labels,
    arrange_classes,
    split_validation,
)
from reslab.data.location import Location, Url
from reslab.data.shards.reader import is_packed, open_part, open_remote_part, remote_parts

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "validation", "valid", "test")  # the first that exists is used
CLASS_LIST = "classes.csv"
WHOLE_FOLDER = "whole"  # the name for the images of an unsplit folder


@dataclass(frozen=True)
class FolderPart:
    """One split of a folder, or an unsplit folder as a whole."""

    name: str  # "train", "validation" or WHOLE_FOLDER
    root: Location
    prefix: str  # from the opened folder to `root`: "val/", or ""
    images: EncodedImages

    @property
    def packed(self) -> bool:
        """Whether the images are packed in shards."""
        return not isinstance(self.images.read, FolderReader)

    @property
    def classes(self) -> dict[str, int]:
        """The number of images in each class."""
        counts = self.images.labels.bincount(minlength=len(self.images.ids))
        return dict(zip(self.images.ids, counts.tolist(), strict=True))


def open_folder(
    place: Location, *, validation: float = 0.2, seed: int = 0, names: Path | None = None
) -> FolderSplits:
    """Open the training and validation splits of a folder.

    From an unsplit folder, the fraction `validation` of each class is split off, chosen by `seed`.
    `names` is a class list to use instead of the folder's classes.csv.
    """
    return split_folder(read_folder(place, names), validation, seed)


def read_folder(place: Location, names: Path | None = None) -> FolderSplits | EncodedImages:
    """Return both splits of a folder, or all images of an unsplit folder."""
    parts = {
        name: FolderPart(name, root, prefix_of(root, place), _open(root, place, names))
        for name, root in part_roots(place, refuse).items()
    }
    check_parts(parts, refuse)
    if "validation" not in parts:
        (whole,) = parts.values()
        return whole.images
    train = replace(parts["train"].images, name="train")
    test = align_labels(train, parts["validation"].images)
    return Splits(train, replace(test, name="validation"))


def split_folder(
    images: FolderSplits | EncodedImages, validation: float, seed: int = 0
) -> FolderSplits:
    """Return existing splits unchanged, or split the images of an unsplit folder."""
    if isinstance(images, EncodedImages):
        return split_validation(images, validation, seed)
    return images


def open_whole_folder(place: Location, *, names: Path | None = None) -> EncodedImages:
    """Open an unsplit folder as one set, or the validation split of a split folder."""
    train, test = find_parts(place)
    whole = _open(test or train or place, place, names)
    return replace(whole, name="validation") if test else whole


def open_folder_parts(folder: Path) -> dict[str, EncodedImages]:
    """Open a folder's splits, keyed by their subfolders in a packed copy.

    The keys are "train" and "validation", or "." for an unsplit folder.
    """
    train, test = find_parts(folder)
    if train and test:
        sets = open_folder(folder)
        return {"train": sets.train, "validation": sets.test}
    only = "train" if train else "validation" if test else "."
    return {only: open_whole_folder(folder)}


def find_parts(place: Location) -> tuple[Location | None, Location | None]:
    """Find the training and validation splits; both are None for an unsplit folder.

    A single split name among other subfolders is a class: there are photographs of trains.
    """
    if isinstance(place, Url):
        return remote_parts(place)
    if is_packed(place):
        return None, None
    folders = {name.lower(): place / name for name in subfolders(place)}
    train = next((folders[name] for name in TRAIN_NAMES if name in folders), None)
    test = next((folders[name] for name in VALIDATION_NAMES if name in folders), None)
    part = train or test
    if train and test:
        return train, test
    if part and len(folders) == 1 and (is_packed(part) or subfolders(part)):
        return train, test
    return None, None


def part_roots(place: Location, on_problem: OnProblem) -> dict[str, Location]:
    """Return the location of each split that a run reads, keyed by name."""
    train, test = find_parts(place)
    if train is None and test is None:
        return {WHOLE_FOLDER: place}
    if train is None:
        assert test is not None, "find_parts found a split"
        line = f"{place} has {test.name}/ but no {TRAIN_NAMES[0]}/ to train on"
        on_problem(Problem("no training part", ".", refusal=line))
    return {name: root for name, root in (("train", train), ("validation", test)) if root}


def prefix_of(root: Location, place: Location) -> str:
    """Return the path prefix of a split's files, relative to the folder `place`."""
    return f"{root.name}/" if root != place else ""


def check_parts(parts: Mapping[str, FolderPart], on_problem: OnProblem) -> None:
    """Report a single class, and classes that are only in the validation split."""
    train, test = parts.get("train") or parts.get(WHOLE_FOLDER), parts.get("validation")
    if train is None:
        return
    if len(train.images.ids) == 1:
        line = _one_class(train.root, train.images)
        on_problem(Problem("one class", train.prefix or ".", refusal=line))
    if test is None:
        return
    index = ClassIndex(train.images.ids)
    positions = index.match([(id_,) for id_ in test.images.ids])
    for (id_, count), position in zip(test.classes.items(), positions, strict=True):
        if count and position < 0:
            line = f"class {id_!r} is in {test.root} but not in {train.root}: no net can learn it"
            if index.is_ambiguous((id_,)):
                line = (
                    f"class {id_!r} of {test.root} matches several classes of {train.root}, or the "
                    "same class as another one: rename it"
                )
            else:
                line += index.hint(id_)
            on_problem(Problem("class not in training", test.prefix + id_, refusal=line))


def _open(root: Location, place: Location, names: Path | None) -> EncodedImages:
    """Open the images below `root`, which is `place` or one of its splits."""
    images = open_packed(root)
    if images is None:
        assert isinstance(root, Path), "remote splits are packed"
        assert isinstance(place, Path), "a local split is in a local folder"
        files = {id_: class_files(root, id_, refuse)[0] for id_ in class_ids(root, refuse)}
        images = images_by_class(root, files)
        names = names or class_list(root, place)
    return arrange_classes(images, root, names) if names else images


def open_packed(root: Location) -> EncodedImages | None:
    """Open a packed split; return None for a folder of class folders."""
    if isinstance(root, Url):
        return open_remote_part(root)
    return open_part(root) if is_packed(root) else None


def class_list(root: Path, folder: Path) -> Path | None:
    """Find a class list in `root`, or else in `folder`; return None if there is none."""
    places = (root / CLASS_LIST, folder / CLASS_LIST)
    return next((place for place in places if place.is_file()), None)


def _one_class(root: Location, images: EncodedImages) -> str:
    inside = root / images.ids[0]
    line = f"{root} has one class folder, {images.ids[0]!r}; a net needs at least two classes"
    folders = isinstance(inside, Path) and inside.is_dir() and subfolders(inside)
    return f"{line}; did you mean {inside}?" if folders else line
