"""List the images of a folder with one subfolder per class, and its problems."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from reslab.data.datasets import EncodedImages
from reslab.data.decode import BadImage
from reslab.data.formats import (
    ENOUGH,
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    image_format,
    is_read,
    way_to_read,
)
from reslab.data.left_out import LeftOut, count_of, is_system_folder
from reslab.data.shards.foreign import is_foreign
from reslab.data.shards.index import INDEX
from reslab.data.unlabelled import without_classes
from reslab.errors import os_reason
from reslab.runtime.files import read_regular


@dataclass(frozen=True)
class Problem:
    """A problem with a folder; opening a data set raises the first, the doctor collects all."""

    kind: str  # a key of the doctor's ADVICE
    place: str  # relative to the opened folder
    note: str = ""  # details that the doctor reports
    refusal: str = ""  # the error message when a data set is opened


OnProblem = Callable[[Problem], None]


OnOther = Callable[[str, os.DirEntry[str]], None]  # a file that is not read, and its entry


def ignore(file: str, entry: os.DirEntry[str]) -> None:
    """Do nothing about a file that is not read."""


def refuse(problem: Problem) -> None:
    """Raise ValueError for the problem."""
    raise ValueError(problem.refusal)


@dataclass(frozen=True)
class FolderReader:
    """Read a file's bytes, given its path relative to `root`."""

    root: str

    def __call__(self, file: str) -> bytes:
        try:
            return read_regular(f"{self.root}/{file}")
        except OSError as error:
            raise BadImage(f"{file}: cannot be read ({os_reason(error)})") from None


def class_ids(
    root: Path,
    on_problem: OnProblem,
    prefix: str = "",
    listed: Sequence[str] = (),
    left_out: LeftOut | None = None,
) -> tuple[str, ...]:
    """Return a part's classes, which are the names of its subfolders.

    If a class list has paths (`animal/cat`) among its ids, `listed`, the subfolders at these paths
    are the classes. Files beside them and system folders are counted in `left_out`.
    """
    left_out = left_out or LeftOut()
    folders = []
    for entry in list_folder(root):
        if is_folder(entry) and not is_system_folder(entry.name):
            folders.append(entry.name)
        else:
            left_out.add_beside(entry, is_folder(entry))
    if not folders:
        on_problem(Problem("no classes", prefix or ".", refusal=without_classes(root)))
    paths = [id_ for id_ in listed if "/" in id_]
    if paths:
        return tuple(sorted(id_ for name in folders for id_ in _listed_paths(root, name, paths)))
    return tuple(folders)


def _listed_paths(root: Path, folder: str, paths: Sequence[str]) -> Iterator[str]:
    """Yield the listed classes in a folder, and the folders in it that are not listed."""
    if folder not in paths and any(path.startswith(f"{folder}/") for path in paths):
        for name in subfolders(root / folder):
            yield from _listed_paths(root, f"{folder}/{name}", paths)
    else:
        yield folder


def list_classes(
    root: Path,
    ids: Sequence[str],
    on_problem: OnProblem,
    left_out: LeftOut,
    *,
    prefix: str = "",
    required: bool = True,
    on_other: OnOther = ignore,
) -> dict[str, list[str]]:
    """Return the images of each class, relative to `root`.

    With `required`, a class folder is refused if it is empty or has images of formats that are not
    read. Other folders without images are left out. `on_other` is called for each file that is not
    read.
    """
    files, without = {}, {}
    for id_ in ids:
        images, others = class_files(root, id_, on_problem, left_out, prefix)
        for file, entry in others:
            left_out.add(entry, is_folder(entry))
            on_other(prefix + file, entry)
        if images:
            files[id_] = images
        else:
            without[id_] = _no_images(root, id_, others)
    for id_, refusal in without.items():
        if refusal and (required or not files):
            on_problem(Problem("empty class", prefix + id_, refusal=refusal))
        elif not files:
            line = f"{root / id_} has no images"
            on_problem(Problem("empty class", prefix + id_, refusal=line))
        else:
            left_out.no_classes.append(id_)
    return files


def class_files(
    root: Path, id_: str, on_problem: OnProblem, left_out: LeftOut, prefix: str = ""
) -> tuple[list[str], list[tuple[str, os.DirEntry[str]]]]:
    """Return the images below a class folder, sorted, and the other files, relative to `root`.

    The class folder may be a link. Links to folders inside it could form a cycle, so they are not
    followed, and are returned with the other files.
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
                if is_system_folder(entry.name):
                    left_out.system[entry.name] += 1
                else:
                    folders.append(file)
            elif file.lower().endswith(IMAGE_SUFFIXES):
                images.append(file)
            else:
                others.append((file, entry))
    return sorted(images), others


def _no_images(root: Path, id_: str, others: Sequence[tuple[str, os.DirEntry[str]]]) -> str:
    """Return why a folder without images is refused as a class; "" if it is not meant as one."""
    folder = root / id_
    if not others:
        return f"{folder} has no images; add some or remove it"
    unread = [file for file, _ in others if file.lower().endswith(UNREAD_SUFFIXES)]
    if unread:
        return (
            f"{folder} has no images in a format that is read, but {count_of(len(unread), 'file')} "
            f"such as {unread[0]}: {way_to_read(os.path.splitext(unread[0])[1])}"
        )
    for file, entry in others:
        kind = format_by_content(entry)
        if kind and is_read(kind):
            return (
                f"{folder} has no files with the suffix of an image, but {file} is a "
                f"{kind.upper()}: rename it and its like"
            )
    return ""


def format_by_content(entry: os.DirEntry[str]) -> str | None:
    """Return the format of an image file, whatever its name; None if it is something else."""
    try:
        if not entry.is_file():  # reading a pipe could block forever
            return None
        with open(entry, "rb") as file:
            return image_format(file.read(ENOUGH))
    except OSError:
        return None


def images_by_class(root: Path, files: Mapping[str, list[str]]) -> EncodedImages:
    """Build a set from the image files of each class, given relative to `root`."""
    ids = tuple(files)
    counts = torch.tensor([len(images) for images in files.values()], dtype=torch.int64)
    labels = torch.arange(len(ids)).repeat_interleave(counts)
    listed = [file for images in files.values() for file in images]
    return EncodedImages(root.resolve().name, listed, labels, ids, ids, FolderReader(str(root)))


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Return a folder's entries, except hidden ones, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
        return sorted(shown, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{folder} cannot be listed: {os_reason(error)}") from None


def subfolders(folder: Path) -> tuple[str, ...]:
    """Return the names of the subfolders that may be classes or parts, sorted."""
    names = (entry.name for entry in list_folder(folder) if is_folder(entry))
    return tuple(name for name in names if not is_system_folder(name))


def inner_folders(folder: Path) -> tuple[str, ...] | None:
    """Return the subfolders of a folder, sorted; None as soon as an image is found beside them."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.is_dir():
                    return None
                if is_folder(entry) and not is_system_folder(entry.name):
                    names.append(entry.name)
    except OSError:  # reported when the images are listed
        return None
    return tuple(sorted(names))


def holds_images(folder: Path) -> bool:
    """Return whether there is an image or a shard below a folder, or one that cannot be listed."""
    folders = [folder]
    while folders:
        here = folders.pop()
        inner = inner_folders(here)
        if inner is None or (here / INDEX).is_file() or (not inner and is_foreign(here)):
            return True
        folders += [here / name for name in inner if not (here / name).is_symlink()]
    return False


def count_files(folder: Path) -> tuple[int, int]:
    """Return the number of images and of other files below a folder."""
    images = others = 0
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [name for name in files if not name.startswith(".")]
        found = sum(name.lower().endswith(IMAGE_SUFFIXES) for name in shown)
        images, others = images + found, others + len(shown) - found
    return images, others


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to a folder."""
    try:
        return entry.is_dir()
    except OSError:  # a cycle of links
        return False
