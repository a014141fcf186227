"""Tar shards as other programs write them."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.data.shards.mixed_sets import encoded

IMAGES = [encoded(24 + number, 20, number) for number in range(24)]
Members = Mapping[str, bytes | str | dict]


def sample(number: int, label: object, key: str = "", suffix: str = "cls") -> dict[str, bytes]:
    """Return the members of an image and its class."""
    key = key or f"{number:06d}"
    text = label if isinstance(label, str | bytes) else json.dumps(label)
    data = text if isinstance(text, bytes) else text.encode()
    return {f"{key}.jpg": IMAGES[number], f"{key}.{suffix}": data}


def samples(first: int, count: int, suffix: str = "cls", classes: int = 2) -> dict[str, bytes]:
    """Return numbered samples, whose classes alternate."""
    found: dict[str, bytes] = {}
    for number in range(first, first + count):
        label = {"label": number % classes} if suffix == "json" else number % classes
        found |= sample(number, label, suffix=suffix)
    return found


def write_tar(
    path: Path, members: Members, mode: str = "w", form: int = tarfile.USTAR_FORMAT
) -> Path:
    """Write a tar file; `mode` has the compression, such as "w:gz"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            data = json.dumps(content) if isinstance(content, dict) else content
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
