"""Find image files by the names that a table has for them."""

import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

from reslab.data.class_folders import is_folder, is_system_folder, list_folder
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.part_names import Part, part_of_name
from reslab.data.parts import WRAPPERS

MISSING, AMBIGUOUS = -1, -2  # instead of an index
_LEADING_DOTS = re.compile(r"^(\.{1,2}/)+")


def list_files(root: Path) -> tuple[list[str], list[str]]:
    """Return all images below a folder and all other files, relative to it.

    Hidden files, and hidden and system folders, are left out. Links to folders elsewhere are
    followed, each target once.
    """
    images, others, folders = [], [], [""]
    top = os.path.realpath(root)
    followed = set()
    while folders:
        folder = folders.pop()
        for entry in list_folder(root / folder):
            path = f"{folder}{entry.name}"
            if path.lower().endswith(IMAGE_SUFFIXES) and not entry.is_dir(follow_symlinks=False):
                images.append(path)
            elif not is_folder(entry):
                others.append(path)
            elif not is_system_folder(entry.name):
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    if target in followed or os.path.commonpath((top, target)) in (top, target):
                        continue
                    followed.add(target)
                folders.append(f"{path}/")
    return sorted(images), sorted(others)


class ImageFinder:
    """Find files by a path, a path with a foreign prefix, a bare name, or a name without suffix.

    `files` are the images, and `others` the other files, relative to the folder that was listed.
    """

    def __init__(self, files: Sequence[str], others: Sequence[str] = ()) -> None:
        self.files, self.others = files, others
        self._exact = {file: index for index, file in enumerate(files)}

    @cached_property
    def _by_stem(self) -> dict[str, list[int]]:
        by_stem: dict[str, list[int]] = {}
        for index, file in enumerate(self.files):
            by_stem.setdefault(stem(file.rpartition("/")[2]), []).append(index)
        return by_stem

    def find(self, names: Sequence[str], parts: Sequence[Part | None]) -> list[int]:
        """Return the index of each file, or MISSING or AMBIGUOUS.

        `parts` decide between files with the same name, such as `train/1.png` and `test/1.png`.
        Folders in a name are compared with a file's folders, unless they fit none of the files.
        """
        for fits in (_is_same_path, _is_any_path):
            rows = zip(names, parts, strict=True)
            found = [self._find(name, part, fits) for name, part in rows]
            if any(index != MISSING for index in found):
                break
        return found

    def has(self, name: str) -> bool:
        """Return whether a file has this name, with or without its suffix and folders."""
        return self._find(name.strip(), None, _is_any_path) != MISSING

    def _find(self, name: str, part: Part | None, fits: Callable[[str, str], bool]) -> int:
        if name in self._exact:
            return self._exact[name]
        path = _LEADING_DOTS.sub("", name.replace("\\", "/"))
        folder, _, last = path.rpartition("/")
        found = [
            index
            for index in self._by_stem.get(stem(last), ())
            if fits(folder, self.files[index].rpartition("/")[0])
        ]
        if len(found) < 2:
            return found[0] if found else MISSING
        for is_better in (_is_spelled(last), _is_in(part), _is_in_wrapper):
            found = [index for index in found if is_better(self.files[index])] or found
        return found[0] if len(found) == 1 else AMBIGUOUS


def _is_spelled(name: str) -> Callable[[str], bool]:
    """Return a test for files with exactly this name, suffix included."""
    return lambda file: file.rpartition("/")[2].lower() == name.lower()


def _is_in(part: Part | None) -> Callable[[str], bool]:
    """Return a test for files in a folder of this part."""
    return lambda file: part in map(part_of_name, file.split("/")[:-1])


def _is_in_wrapper(file: str) -> bool:
    """Return whether a file is in `images/`, and not in `masks/`."""
    return any(folder.lower() in WRAPPERS for folder in file.split("/")[:-1])


def _is_same_path(written: str, listed: str) -> bool:
    """Return whether one folder's path is the end of the other's, in any case.

    `images/` and the like in the listed path may be missing in the written one.
    """
    first = [folder for folder in written.casefold().split("/") if folder]
    second = [folder for folder in listed.casefold().split("/") if folder]
    for folders in (second, [folder for folder in second if folder not in WRAPPERS]):
        shorter = min(len(first), len(folders))
        if first[len(first) - shorter :] == folders[len(folders) - shorter :]:
            return True
    return False


def _is_any_path(written: str, listed: str) -> bool:
    return True


def stem(name: str) -> str:
    """Return a file's name for loose comparison: NFC, in lower case, without an image suffix."""
    folded = name.lower() if name.isascii() else normalize("NFC", name).casefold()
    base, suffix = os.path.splitext(folded)
    return base if suffix in IMAGE_SUFFIXES else folded
