"""Count the files and folders that are not read when a folder is opened, for a line about each."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN = 6  # suffixes or names in a note


def count_of(number: int, noun: str) -> str:
    """Return "1 file", "2 files" or "2 classes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def shorten(names: Iterable[str], shown: int = SHOWN) -> str:
    """Join names by commas, and count those after the first few."""
    listed = list(names)
    rest = f" and {len(listed) - shown:,} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + rest


@dataclass
class LeftOut:
    """The files and folders in a part that are not read."""

    files: Counter[str] = field(default_factory=Counter)  # by suffix
    folder_links: int = 0  # in class folders
    loose: int = 0  # images beside the class folders
    system: Counter[str] = field(default_factory=Counter)  # system folders, by name
    no_classes: list[str] = field(default_factory=list)  # folders without images

    def add(self, entry: os.DirEntry[str], is_link: bool) -> None:
        """Count a file in a class folder that is not an image, or a link to a folder."""
        if is_link:
            self.folder_links += 1
        else:
            self.files[os.path.splitext(entry.name)[1].lower() or "no suffix"] += 1

    def notes(self, prefix: str) -> tuple[str, ...]:
        """Return a line for each kind; `prefix` is the path of the part in the opened folder."""
        where = f" in {prefix}" if prefix else ""
        kinds = [f"{number:,} {suffix}" for suffix, number in self.files.most_common()]
        lines = []
        if kinds:
            number = count_of(self.files.total(), "file")
            lines.append(f"{number}{where} left out: {shorten(kinds)}")
        if self.folder_links:
            links = count_of(self.folder_links, "link")
            lines.append(f"{links} to folders in class folders{where} left out")
        if self.loose:
            lines.append(
                f"{count_of(self.loose, 'image')} beside the class folders{where} left out"
            )
        if self.system:
            number = count_of(self.system.total(), "system folder")
            lines.append(f"{number}{where} left out: {shorten(sorted(self.system))}")
        if self.no_classes:
            number = count_of(len(self.no_classes), "folder")
            lines.append(f"{number}{where} without images left out: {shorten(self.no_classes)}")
        return tuple(lines)
