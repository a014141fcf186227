"""Count the files and folders that are not read when a folder is opened, for a line about each."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from reslab.data.formats import FORMATS, HEIC_SUFFIXES, way_to_read

CLASS_LIST = "classes.csv"  # read with the class folders beside it
SHOWN = 6  # suffixes or names in a note
# folders created by operating systems, file servers and archivers; `thumbs` may be a class
SYSTEM_FOLDERS = re.compile(
    r"(?i:__macosx|__pycache__|\$(recycle\.bin|winreagent|sysreset)|recycler|lost\.dir|lost\+found|"
    r"system volume information|found\.\d{3}|[#@~](recycle|snapshot|tmp|eadir|sharebin|"
    r"recently-snapshot)|network trash folder|temporary items)|Thumbs"
)


def is_system_folder(name: str) -> bool:
    """Return whether a folder belongs to an operating system, a file server or an archiver."""
    return SYSTEM_FOLDERS.fullmatch(name) is not None


def count_of(number: int, noun: str) -> str:
    """Return "1 file", "2 files" or "2 classes"."""
    plural = f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def shorten(names: Iterable[str], shown: int = SHOWN) -> str:
    """Join names by commas, and count those after the first few."""
    listed = list(names)
    rest = f" and {len(listed) - shown:,} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + rest


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, or "no suffix"."""
    return os.path.splitext(name)[1].lower() or "no suffix"


def count_suffixes(suffixes: Counter[str], where: str) -> str:
    """Return a line about files that are left out, with the number of each suffix."""
    kinds = [f"{number:,} {suffix}" for suffix, number in suffixes.most_common()]
    line = f"{count_of(suffixes.total(), 'file')}{where} left out: {shorten(kinds)}"
    heic = [suffix for suffix in HEIC_SUFFIXES if suffix in suffixes and suffix not in FORMATS]
    return f"{line} ({way_to_read(heic[0])})" if heic else line


@dataclass
class LeftOut:
    """The files and folders in a part that are not read."""

    files: Counter[str] = field(default_factory=Counter)  # by suffix
    folder_links: int = 0  # in class folders
    loose: Counter[str] = field(default_factory=Counter)  # beside the class folders, by suffix
    system: Counter[str] = field(default_factory=Counter)  # system folders, by name
    no_classes: list[str] = field(default_factory=list)  # folders without images

    def add(self, entry: os.DirEntry[str], is_link: bool) -> None:
        """Count a file in a class folder that is not an image, or a link to a folder."""
        if is_link:
            self.folder_links += 1
        else:
            self.files[suffix_of(entry.name)] += 1

    def add_beside(self, entry: os.DirEntry[str], is_folder: bool) -> None:
        """Count a system folder, or a file beside the folders that are read."""
        if is_folder:
            self.system[entry.name] += 1
        elif entry.name != CLASS_LIST:
            self.loose[suffix_of(entry.name)] += 1

    def notes(self, prefix: str, folders: str = "class folders") -> tuple[str, ...]:
        """Return a line for each kind.

        `prefix` is the path of the part in the opened folder; `folders` are the ones that are read.
        """
        where = f" in {prefix}" if prefix else ""
        lines = []
        if self.files:
            lines.append(count_suffixes(self.files, where))
        if self.folder_links:
            links = count_of(self.folder_links, "link")
            lines.append(f"{links} to folders in class folders{where} left out")
        if self.loose:
            lines.append(count_suffixes(self.loose, f" beside the {folders}{where}"))
        if self.system:
            number = count_of(self.system.total(), "system folder")
            lines.append(f"{number}{where} left out: {shorten(sorted(self.system))}")
        if self.no_classes:
            number = count_of(len(self.no_classes), "folder")
            lines.append(f"{number}{where} without images left out: {shorten(self.no_classes)}")
        return tuple(lines)
