"""What lies in a folder of images, whatever is wrong with it: the doctor's view.

`folder.open_folder` stops at the first fault of arrangement; here they are collected. The rules
are the same: a test holds that both see the same images.
"""

import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from reslab.data.decode import IMAGE_SUFFIXES, image_format
from reslab.data.folder import (
    FolderReader,
    Problem,
    files_below,
    find_parts,
    is_folder,
    list_folder,
    subfolders,
)
from reslab.data.location import Location, Url
from reslab.data.shards.reader import is_packed, open_part, open_remote_part

WHOLE_FOLDER = "whole"  # the name of the part where there are no parts


class NameTable:
    """Very many names of files: their bytes end to end, and where each ends."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])

    def append(self, name: str) -> None:
        self._bytes += os.fsencode(name)
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(bytes(self._bytes[self._ends[index] : self._ends[index + 1]]))


@dataclass(frozen=True)
class ScannedPart:
    """One of the folders that images are read from."""

    name: str  # "train", "validation" or WHOLE
    prefix: str  # what stands before the names of its files: "val/", or nothing
    packed: bool
    read: Callable[[str], bytes]
    classes: dict[str, int] = field(default_factory=dict)  # the names of subfolders: images


@dataclass
class FolderScan:
    """Every image by its number, as columns; and what is no image."""

    folder: Location
    parts: list[ScannedPart] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)  # of the classes of all parts: their numbers
    names: NameTable = field(default_factory=NameTable)  # relative to the root of their part
    part_of: array = field(default_factory=lambda: array("B"))  # [N], into `parts`
    class_of: array = field(default_factory=lambda: array("l"))  # [N], a number of `ids`
    # what is not read, relative to `folder`
    misnamed: NameTable = field(default_factory=NameTable)  # images by their content alone
    formats: list[str] = field(default_factory=list)  # of the misnamed
    others: NameTable = field(default_factory=NameTable)  # no images
    outside: NameTable = field(default_factory=NameTable)  # of all class folders
    faults: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, file: str) -> None:
        """One more image of the last part, of class `name`."""
        part = self.parts[-1]
        self.names.append(file)
        self.part_of.append(len(self.parts) - 1)
        self.class_of.append(self.ids.setdefault(name, len(self.ids)))
        part.classes[name] = part.classes.get(name, 0) + 1

    def path(self, index: int) -> str:
        """The name of an image relative to the folder that is checked."""
        return self.parts[self.part_of[index]].prefix + self.names[index]


def scan_folder(folder: Location) -> FolderScan:
    """The images that a run would read, and what stands in its way. None is decoded."""
    if isinstance(folder, Path) and not folder.is_dir():
        raise ValueError(f"{folder} is {'no folder' if folder.exists() else 'not there'}")
    listing = FolderScan(folder)
    train, test = find_parts(folder)
    if not train and not test:
        _list_part(listing, WHOLE_FOLDER, folder)
        return listing
    for name, root in (("train", train), ("validation", test)):
        if root:
            _list_part(listing, name, root)
    if not train:
        listing.faults.append(Problem("no training part", "."))
    if isinstance(folder, Url):
        return listing
    used = {root.name for root in (train, test) if root}
    _list_outside(listing, folder, [name for name in subfolders(folder) if name not in used])
    return listing


def _list_part(listing: FolderScan, name: str, root: Location) -> None:
    prefix = f"{root.name}/" if root != listing.folder else ""
    if isinstance(root, Url) or is_packed(root):
        _list_packed(listing, name, prefix, root)
        return
    try:
        classes = subfolders(root)
    except ValueError as error:
        listing.faults.append(Problem("unreadable folder", prefix or ".", str(error)))
        return
    part = ScannedPart(name, prefix, False, FolderReader(str(root)))
    listing.parts.append(part)
    here = Path(os.path.realpath(root))
    seen = {str(parent): "a folder around it" for parent in (here, *here.parents)}
    for id_ in classes:
        real = os.path.realpath(root / id_)
        if real in seen:
            listing.faults.append(Problem("linked class", prefix + id_, f"leads to {seen[real]}"))
            continue
        seen[real] = f"the same files as {prefix}{id_}"
        part.classes[id_] = 0
        for file, entry in files_below(root, id_, partial(_listed, listing)):
            _list_file(listing, part, id_, file, entry)
    _list_outside(listing, root, [])


def _list_packed(listing: FolderScan, name: str, prefix: str, root: Location) -> None:
    try:
        images = open_remote_part(root) if isinstance(root, Url) else open_part(root)
    except ValueError as error:
        listing.faults.append(Problem("shards", prefix or ".", str(error)))
        return
    listing.parts.append(ScannedPart(name, prefix, True, images.read))
    for file, label in zip(images.files, images.labels.tolist(), strict=True):
        listing.add(images.ids[label], file)


def _list_file(
    listing: FolderScan, part: ScannedPart, id_: str, file: str, entry: os.DirEntry[str]
) -> None:
    if file.lower().endswith(IMAGE_SUFFIXES):
        listing.add(id_, file)
    elif is_folder(entry):
        listing.faults.append(
            Problem("linked folder", part.prefix + file, f"to {os.readlink(entry)}")
        )
    elif kind := _format_by_head(entry):
        listing.misnamed.append(part.prefix + file)
        listing.formats.append(kind)
    else:
        listing.others.append(part.prefix + file)


def _format_by_head(entry: os.DirEntry[str]) -> str | None:
    try:
        if not entry.is_file():  # a pipe would be read for ever
            return None
        with open(entry, "rb") as file:
            return image_format(file.read(16))
    except OSError:
        return None


def _listed(listing: FolderScan, folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list_folder(folder)
    except ValueError as error:
        assert isinstance(listing.folder, Path), "what is afar is packed"
        place = str(folder.relative_to(listing.folder))
        listing.faults.append(Problem("unreadable folder", place, str(error)))
        return []


def _list_outside(listing: FolderScan, root: Path, folders: list[str]) -> None:
    """Images beside the class folders, and folders beside the parts."""
    prefix = f"{root.name}/" if root != listing.folder else ""
    entries = (entry.name for entry in list_folder(root) if not is_folder(entry))
    images = (name for name in entries if name.lower().endswith(IMAGE_SUFFIXES))
    for name in (*images, *(f"{folder}/" for folder in folders)):
        listing.outside.append(prefix + name)
