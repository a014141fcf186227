"""The images that a user names, and a model's results on each."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from reslab.data.decode import IMAGE_TYPES, UNNAMED, BadImage, ImageInput
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.left_out import count_suffixes, suffix_of
from reslab.runtime.files import MAX_BYTES
from reslab.runtime.text import printable

Result = TypeVar("Result")  # a prediction or a detection
STDIN = "-"


@dataclass(frozen=True)
class InputImage:
    """An image given by the user, or found in a folder given by the user."""

    file: str  # path as opened and printed, STDIN, or a number for an image in memory
    folder: str | None = None  # the folder it was found in; None if the image itself was given
    content: ImageInput | None = None  # of an image in memory

    @property
    def name(self) -> str:
        """The file relative to its folder, or as given."""
        return os.path.relpath(self.file, self.folder) if self.folder else self.file

    @property
    def source(self) -> ImageInput:
        if self.content is not None:
            return self.content
        if self.file != STDIN:
            return self.file
        return sys.stdin.buffer.read(MAX_BYTES)  # a larger image is cut, and so refused as damaged

    def reason(self, error: BadImage) -> str:
        """Return why the image is bad, without its name."""
        return str(error).removeprefix(f"{self.file}: ").removeprefix(f"{UNNAMED}: ")


@dataclass(frozen=True)
class ImageResult(Generic[Result]):
    """A model's results on an image, the most probable first, or why the image is bad."""

    file: str
    results: Sequence[Result] = ()
    error: str | None = None

    def __repr__(self) -> str:
        results = ", ".join(str(result).strip() for result in self.results)
        return printable(f"{self.file}: {self.error or results or 'nothing'}")


def find_images(given: ImageInput | Sequence[ImageInput]) -> tuple[list[InputImage], Counter[str]]:
    """Return the images, in the order given, and the suffixes of files in folders left out.

    Files in folders are left out if their suffix is not an image's. Raise ValueError for a folder
    without images.
    """
    sources: Sequence[ImageInput] = [given] if isinstance(given, IMAGE_TYPES) else given
    images: list[InputImage] = []
    left_out = Counter[str]()
    for number, source in enumerate(sources, 1):
        if not isinstance(source, str | Path):
            images.append(InputImage(f"image {number}", content=source))
        elif str(source) == STDIN or not os.path.isdir(source):
            images.append(InputImage(str(source)))
        else:
            found, others = images_in(str(source))
            images += found
            left_out += others
    if [image.file for image in images].count(STDIN) > 1:
        raise ValueError("- is given twice, but standard input holds one image")
    return images, left_out


def images_in(folder: str) -> tuple[list[InputImage], Counter[str]]:
    """Return the images in a folder and its subfolders, and the suffixes of other files."""
    images: list[InputImage] = []
    others = Counter[str]()
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files = sorted(name for name in names if not name.startswith("."))
        for name in files:
            if name.lower().endswith(IMAGE_SUFFIXES):
                images.append(InputImage(os.path.join(place, name), folder))
            else:
                others[suffix_of(name)] += 1
    if not images:
        line = f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})"
        raise ValueError(f"{line}; {count_suffixes(others, '')}" if others else line)
    return images, others
