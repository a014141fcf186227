"""The images that a verb is given to look at, and what is printed of each."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from reslab.data.decode import BadImage


Answer = TypeVar("Answer")

STDIN = "-"
WIDEST = 60  # characters of a file's name that others are aligned with


@dataclass(frozen=True)
class InputFile:
    """An image that was named, or lies in a folder that was."""

    file: str  # as it is opened and printed; STDIN
    folder: str | None = None  # where it was found; None: it was named itself

    @property
    def name(self) -> str:
        """Within its folder, or as given."""
        return os.path.relpath(self.file, self.folder) if self.folder else self.file


def files_of(paths: Sequence[str]) -> tuple[list[InputFile], int]:
    """Files as named, those of folders in order; how many in folders have no image's suffix."""
    from reslab.data.decode import IMAGE_SUFFIXES

    if paths.count(STDIN) > 1:
        raise ValueError("- stands twice; standard input holds one image")
    files: list[InputFile] = []
    unlike = 0
    for path in paths:
        if path == STDIN or not os.path.isdir(path):
            files.append(InputFile(path))
            continue
        before = len(files)
        for folder, subfolders, names in os.walk(path):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            shown = sorted(name for name in names if not name.startswith("."))
            chosen = [name for name in shown if name.lower().endswith(IMAGE_SUFFIXES)]
            unlike += len(shown) - len(chosen)
            files += [InputFile(os.path.join(folder, name), path) for name in chosen]
        if len(files) == before:
            raise ValueError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return files, unlike


def width_of(files: Iterable[str]) -> int:
    """Of the column of names, so that most are aligned."""
    return min(WIDEST, max(map(len, files)))


def print_json_list(
    answers: Iterable[tuple[str, Answer]], entry: Callable[[str, Answer], dict[str, object]]
) -> None:
    """One list, an entry an image, written as it comes."""
    between = "["
    for file, answer in answers:
        print(between)
        print(f"  {json.dumps(entry(file, answer))}", end="", flush=True)
        between = ","
    print("\n]")


def reason(file: str, bad: "BadImage") -> str:
    """Why an image is bad, without its name."""
    from reslab.data.decode import UNNAMED

    return str(bad).removeprefix(f"{UNNAMED if file == STDIN else file}: ")


def numbers_in(scales: str | None) -> list[int] | None:
    """Of 400,600,800 the three numbers."""
    if scales is None:
        return None
    try:
        return [int(number) for number in scales.split(",")]
    except ValueError:
        raise ValueError(f"--scales {scales}: write whole numbers as 400,600,800") from None
