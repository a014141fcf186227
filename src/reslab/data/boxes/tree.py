"""Scan the folders of a data set for images and files of annotations."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reslab.data.class_folders import is_folder, is_system_folder
from reslab.data.formats import IMAGE_SUFFIXES

MAX_DEPTH = 6  # levels of folders below the opened one
# usual names for a folder of images, the most usual first
IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "photos", "pictures", "data")
DATA_SUFFIXES = (".xml", ".json", ".txt", ".csv", ".tsv")


@dataclass
class Folder:
    """A folder with its subfolders. Hidden files and system folders are left out."""

    path: Path
    folders: list["Folder"] = field(default_factory=list)  # sorted by name
    xml: list[str] = field(default_factory=list)  # names of files, sorted
    json: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    images: int = 0

    def walk(self) -> Iterator["Folder"]:
        """Yield this folder and all folders below it, each before its subfolders."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def has_images(self) -> bool:
        return any(folder.images for folder in self.walk())

    def has_xml(self) -> bool:
        return any(folder.xml for folder in self.walk())

    def has_texts(self) -> bool:
        return any(folder.texts for folder in self.walk())

    def files_of(self, suffix: str) -> list[str]:
        """Return the list of the files with one of DATA_SUFFIXES."""
        lists = {".xml": self.xml, ".json": self.json, ".txt": self.texts}
        return lists.get(suffix, self.tables)


def scan(path: Path, depth: int = MAX_DEPTH) -> Folder:
    """Scan a folder and its subfolders; one that cannot be listed is empty."""
    folder = Folder(path)
    names: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == ".":
                    continue
                lower = name.lower()
                if lower.endswith(IMAGE_SUFFIXES):
                    folder.images += 1
                elif lower.endswith(DATA_SUFFIXES):
                    folder.files_of(os.path.splitext(lower)[1]).append(name)
                elif depth and is_folder(entry) and not _is_left_out(entry):
                    names.append(name)
    except OSError:  # reported by the reader of the images
        return folder
    for names_of_kind in (folder.xml, folder.json, folder.texts, folder.tables):
        names_of_kind.sort()
    folder.folders = [scan(path / name, depth - 1) for name in sorted(names)]
    return folder


def inner_folders(path: Path) -> list[Path]:
    """Return the subfolders of a folder, sorted, except hidden ones and system folders."""
    try:
        with os.scandir(path) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name[0] != "." and not is_system_folder(entry.name) and is_folder(entry)
            ]
    except OSError:
        return []
    return [path / name for name in sorted(names)]


def _is_left_out(entry: os.DirEntry[str]) -> bool:
    """Return whether a folder is a system folder, or a link to a folder above it."""
    if is_system_folder(entry.name):
        return True
    return entry.is_symlink() and Path(entry.path).parent.resolve().is_relative_to(
        os.path.realpath(entry.path)
    )
