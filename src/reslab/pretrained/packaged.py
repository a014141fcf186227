"""The project's own networks that come with the package, each a run folder in this one."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reslab.runtime.files import read_json, read_regular

HOME = Path(__file__).parent
MODEL, RESULT, SUMS = "model.safetensors", "result.json", "SHA256SUMS"
SOURCE = "reslab"


@dataclass(frozen=True)
class Packaged:
    """A network of the package: the folder of the run that trained it."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def megabytes(self) -> float:
        return (self.folder / MODEL).stat().st_size / 1e6

    def report(self) -> dict[str, Any]:
        """Return the final report on the test set, from the run's result.json."""
        return read_json(self.folder / RESULT)["evaluation"][-1]


def packaged(home: Path = HOME) -> dict[str, Packaged]:
    """Return the networks in the package, by name."""
    return {file.parent.name: Packaged(file.parent) for file in sorted(home.glob(f"*/{MODEL}"))}


def damaged_files(home: Path = HOME) -> list[str]:
    """Return the models that differ from the list of SHA-256 in the package, or are not in it."""
    lines = (home / SUMS).read_text("utf-8").splitlines() if (home / SUMS).exists() else []
    known = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    found = {
        f"{name}/{MODEL}": hashlib.sha256(read_regular(net.folder / MODEL)).hexdigest()
        for name, net in packaged(home).items()
    }
    return sorted(name for name in known | found if known.get(name) != found.get(name))
