"""Find the files of annotated images."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path


def missing_images(root: Path, files: Sequence[str]) -> Iterator[str]:
    """Yield the images that do not exist; list each folder once instead of testing each image."""
    listed: dict[str, set[str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        if folder not in listed:
            try:
                listed[folder] = set(os.listdir(f"{root}/{folder}"))
            except (OSError, ValueError):  # ValueError: an invalid file name
                listed[folder] = set()
        if name not in listed[folder]:
            yield file
