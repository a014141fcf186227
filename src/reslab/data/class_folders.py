"""List the images of a folder with one subfolder per class, and its problems."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import torch

from reslab.data.datasets import EncodedImages
from reslab.data.decode import IMAGE_SUFFIXES, BadImage
from reslab.errors import os_reason

NO_CLASSES = ("__MACOSX", "@eaDir")  # created by archivers and file servers


@dataclass(frozen=True)
class Problem:
    """A problem with a folder; opening a data set raises the first, the doctor collects all."""

    kind: str  # a key of the doctor's ADVICE
    place: str  # relative to the opened folder
    note: str = ""  # details that the doctor reports
    refusal: str = ""  # the error message when a data set is opened


OnProblem = Callable[[Problem], None]


def refuse(problem: Problem) -> None:
    """Raise ValueError for the problem."""
    raise ValueError(problem.refusal)


@dataclass(frozen=True)
class FolderReader:
    """Read a file's bytes, given its path relative to `root`."""

    root: str

    def __call__(self, file: str) -> bytes:
        try:
            with open(f"{self.root}/{file}", "rb", opener=_open_at_once) as handle:
                if S_ISREG(os.fstat(handle.fileno()).st_mode):
                    return handle.read()
            raise OSError("not a file but a device, pipe or socket")
        except OSError as error:
            raise BadImage(f"{file}: cannot be read ({os_reason(error)})") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; if it is a pipe, do not wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def class_ids(root: Path, on_problem: OnProblem, prefix: str = "") -> tuple[str, ...]:
    """Return a split's classes, which are the names of its subfolders."""
    ids = subfolders(root)
    if not ids:
        on_problem(Problem("no classes", prefix or ".", refusal=_no_classes(root)))
    return ids


def class_files(
    root: Path, id_: str, on_problem: OnProblem, prefix: str = ""
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
                folders += [file] if entry.name not in NO_CLASSES else []
            elif file.lower().endswith(IMAGE_SUFFIXES):
                images.append(file)
            else:
                others.append((file, entry))
    if not images:
        line = f"{root / id_} has no images ({', '.join(IMAGE_SUFFIXES)}); add some or remove it"
        on_problem(Problem("empty class", prefix + id_, refusal=line))
    return sorted(images), others


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
    """Return the names of the subfolders that may be classes or splits, sorted."""
    names = (entry.name for entry in list_folder(folder) if is_folder(entry))
    return tuple(name for name in names if name not in NO_CLASSES)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to a folder."""
    try:
        return entry.is_dir()
    except OSError:  # a cycle of links
        return False


def _no_classes(root: Path) -> str:
    for entry in list_folder(root):
        if entry.name.startswith("ILSVRC2012_val_"):
            return (
                f"{root} has ImageNet's validation images in a single folder: move each into a "
                "subfolder named by its wnid (n01440764/...), using the devkit's ground truth"
            )
    return f"{root} has no class folders: put the images of each class into a subfolder"
