"""Folders of images, a class a subfolder: what is in a folder says how it is read."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG

import torch

from reslab.data.datasets import (
    EncodedImages,
    FolderSplits,
    Splits,
    align_labels,
    arrange_classes,
    split_validation,
)
from reslab.data.decode import IMAGE_SUFFIXES, BadImage
from reslab.data.location import Location, Url
from reslab.data.shards.reader import is_packed, open_part, open_remote_part, remote_parts
from reslab.errors import os_reason

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "validation", "valid", "test")  # the first that is there
CLASS_LIST = "classes.csv"
NO_CLASSES = ("__MACOSX", "@eaDir")  # left by archivers and file servers
WHOLE_FOLDER = "whole"  # the name of the only part of a folder without parts


@dataclass(frozen=True)
class Problem:
    """Something wrong with a folder, which a data set refuses and the doctor collects."""

    kind: str  # a key of the doctor's ADVICE
    place: str  # relative to the folder that is opened
    note: str = ""  # what the doctor adds
    refusal: str = ""  # the whole line with which a data set refuses it


OnProblem = Callable[[Problem], None]


def refuse(problem: Problem) -> None:
    """Refuse the folder."""
    raise ValueError(problem.refusal)


@dataclass(frozen=True)
class FolderPart:
    """One of the folders that images are read from."""

    name: str  # "train", "validation" or WHOLE_FOLDER
    root: Location
    prefix: str  # from the opened folder to `root`: "val/", or nothing
    images: EncodedImages

    @property
    def packed(self) -> bool:
        """Whether the images lie in shards."""
        return not isinstance(self.images.read, FolderReader)

    @property
    def classes(self) -> dict[str, int]:
        """How many images each class has."""
        counts = self.images.labels.bincount(minlength=len(self.images.ids))
        return dict(zip(self.images.ids, counts.tolist(), strict=True))


@dataclass(frozen=True)
class FolderReader:
    """Read the bytes of a file by its name below `root`."""

    root: str

    def __call__(self, file: str) -> bytes:
        try:
            with open(f"{self.root}/{file}", "rb", opener=_open_at_once) as handle:
                if S_ISREG(os.fstat(handle.fileno()).st_mode):
                    return handle.read()
            raise OSError("not a file but a device, a pipe or a socket")
        except OSError as error:
            raise BadImage(f"{file}: cannot be read ({os_reason(error)})") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for somebody to write to a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def open_folder(
    place: Location, *, validation: float = 0.2, seed: int = 0, names: Path | None = None
) -> FolderSplits:
    """Open the train and the validation part of a folder.

    Where there are no parts, the fraction `validation` of each class is drawn by `seed`. `names`
    takes the place of the folder's classes.csv.
    """
    return split_folder(read_folder(place, names), validation, seed)


def read_folder(place: Location, names: Path | None = None) -> FolderSplits | EncodedImages:
    """The two parts of a folder, or all of its images where there are no parts."""
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
    """Return the parts that were read, or draw them from a whole; see `open_folder`."""
    if isinstance(images, EncodedImages):
        return split_validation(images, validation, seed)
    return images


def open_whole_folder(place: Location, *, names: Path | None = None) -> EncodedImages:
    """Open every image as one set; of a folder with parts, its validation part."""
    train, test = find_parts(place)
    whole = _open(test or train or place, place, names)
    return replace(whole, name="validation") if test else whole


def open_folder_parts(folder: Path) -> dict[str, EncodedImages]:
    """Open the parts by their names in a copy: "train", "validation", or "." for a whole."""
    train, test = find_parts(folder)
    if train and test:
        sets = open_folder(folder)
        return {"train": sets.train, "validation": sets.test}
    only = "train" if train else "validation" if test else "."
    return {only: open_whole_folder(folder)}


def find_parts(place: Location) -> tuple[Location | None, Location | None]:
    """Find the train and the validation part.

    One alone among other subfolders is a class: a train is a thing to photograph.
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
    """Name the parts that a run reads, and where they are."""
    train, test = find_parts(place)
    if train is None and test is None:
        return {WHOLE_FOLDER: place}
    if train is None:
        assert test is not None, "one of both"
        line = f"{place} has {test.name}/ and no {TRAIN_NAMES[0]}/ beside it to train on"
        on_problem(Problem("no training part", ".", refusal=line))
    return {name: root for name, root in (("train", train), ("validation", test)) if root}


def prefix_of(root: Location, place: Location) -> str:
    """Return the prefix of a part's files, relative to the folder `place`."""
    return f"{root.name}/" if root != place else ""


def check_parts(parts: Mapping[str, FolderPart], on_problem: OnProblem) -> None:
    """Report classes that nothing can be learned from: a single one, and those of the validation
    part alone."""
    train, test = parts.get("train") or parts.get(WHOLE_FOLDER), parts.get("validation")
    if train is None:
        return
    if len(train.images.ids) == 1:
        line = _one_class(train.root, train.images)
        on_problem(Problem("one class", train.prefix or ".", refusal=line))
    if test is None:
        return
    for id_, count in test.classes.items():
        if count and id_ not in train.images.ids:
            line = f"class {id_!r} is in {test.root} and not in {train.root}; no net could learn it"
            on_problem(Problem("class not in training", test.prefix + id_, refusal=line))


def _open(root: Location, place: Location, names: Path | None) -> EncodedImages:
    """Open the images below `root`, which is `place` or a part of it."""
    images = open_packed(root)
    if images is None:
        assert isinstance(root, Path), "what is remote is packed"
        assert isinstance(place, Path), "what it is a part of"
        files = {id_: class_files(root, id_, refuse)[0] for id_ in class_ids(root, refuse)}
        images = images_by_class(root, files)
        names = names or class_list(root, place)
    return arrange_classes(images, root, names) if names else images


def open_packed(root: Location) -> EncodedImages | None:
    """Open a part that is packed; None for a folder of class folders."""
    if isinstance(root, Url):
        return open_remote_part(root)
    return open_part(root) if is_packed(root) else None


def class_list(root: Path, folder: Path) -> Path | None:
    """Find the file that orders and names the classes of `root`: there, or in `folder`."""
    places = (root / CLASS_LIST, folder / CLASS_LIST)
    return next((place for place in places if place.is_file()), None)


def class_ids(root: Path, on_problem: OnProblem, prefix: str = "") -> tuple[str, ...]:
    """List the classes of a part: the names of its subfolders."""
    ids = subfolders(root)
    if not ids:
        on_problem(Problem("no classes", prefix or ".", refusal=_no_classes(root)))
    return ids


def class_files(
    root: Path, id_: str, on_problem: OnProblem, prefix: str = ""
) -> tuple[list[str], list[tuple[str, os.DirEntry[str]]]]:
    """List the images below a class's folder, sorted, and the other files, relative to `root`.

    A link to a folder is not followed and counts as a file, except that the class's folder may be
    one: links below it could lead in circles.
    """
    images, others, folders = [], [], [id_]
    while folders:
        folder = folders.pop()
        try:
            entries = list_folder(root / folder)
        except ValueError as error:
            on_problem(Problem("unreadable folder", prefix + folder, str(error), str(error)))
            continue
        for entry in entries:
            file = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                folders += [file] if entry.name not in NO_CLASSES else []
            elif file.lower().endswith(IMAGE_SUFFIXES):
                images.append(file)
            else:
                others.append((file, entry))
    if not images:
        line = f"{root / id_} holds no image ({', '.join(IMAGE_SUFFIXES)}); remove it, or fill it"
        on_problem(Problem("empty class", prefix + id_, refusal=line))
    return sorted(images), others


def images_by_class(root: Path, files: Mapping[str, list[str]]) -> EncodedImages:
    """Make a set of the files of each class."""
    ids = tuple(files)
    counts = torch.tensor([len(images) for images in files.values()], dtype=torch.int64)
    labels = torch.arange(len(ids)).repeat_interleave(counts)
    listed = [file for images in files.values() for file in images]
    return EncodedImages(root.resolve().name, listed, labels, ids, ids, FolderReader(str(root)))


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """List what is in a folder and not hidden, by name."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
        return sorted(shown, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{folder} cannot be listed: {os_reason(error)}") from None


def subfolders(folder: Path) -> tuple[str, ...]:
    """List the names of the folders that may be classes or parts, sorted."""
    names = (entry.name for entry in list_folder(folder) if is_folder(entry))
    return tuple(name for name in names if name not in NO_CLASSES)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _one_class(root: Location, images: EncodedImages) -> str:
    inside = root / images.ids[0]
    line = f"{root} holds one class folder, {images.ids[0]!r}; a net needs at least two classes"
    folders = isinstance(inside, Path) and inside.is_dir() and subfolders(inside)
    return f"{line}; did you mean {inside}?" if folders else line


def _no_classes(root: Path) -> str:
    for entry in list_folder(root):
        if entry.name.startswith("ILSVRC2012_val_"):
            return (
                f"{root} holds ImageNet's validation images in one heap: move each into a folder "
                "named after its class's wnid (n01440764/...), by the devkit's ground truth"
            )
    return f"{root} holds no class folders: put the images of each class into a subfolder"
