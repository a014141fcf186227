"""Find trained networks by name: in the package, in the cache, or where they are published."""

import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from reslab.pretrained.download import download
from reslab.pretrained.packaged import SOURCE, Packaged, packaged
from reslab.pretrained.table import AUTHORS_PAGE, MEAN, PUBLISHED, Published
from reslab.runtime.files import read_regular
from reslab.runtime.writing import lock, prepare_folder, unlock

NAME = re.compile(r"[\w-]+(:[\w.-]+)?")  # of a network, perhaps with a source
ALIKE = 0.75  # of two names, for a suggestion
PAUSE = 0.2  # seconds between looks at a lock
Known = Packaged | Published


def located(model: str | Path) -> Path:
    """Return the path of a model file or run folder, which may be given by a network's name.

    A path that exists is returned as it is. Otherwise "resnet50" or "resnet50:timm" is the network
    of that name, from that source: weights that are not on this machine are downloaded, verified
    and made a model file in the user's cache. Any other path is returned as it is.

    Raise ValueError for a name that is nearly that of a network, for a source that does not publish
    it, and if the weights cannot be downloaded; the message says where to put them.
    """
    path, text = Path(model), str(model)
    if os.path.lexists(path) or not NAME.fullmatch(text):
        return path
    name, _, source = text.partition(":")
    choices = known_networks().get(name)
    if choices is None:
        near = get_close_matches(name, known_networks(), n=1, cutoff=ALIKE)
        if near or ":" in text:
            hint = f"; did you mean {near[0]!r}?" if near else ":"
            raise ValueError(f"no model at {text}{hint} `reslab weights` lists the names")
        return path
    must_publish(name, choices, source)
    chosen = choices[source] if source else next(iter(choices.values()))
    return chosen.folder if isinstance(chosen, Packaged) else model_file_of(chosen)


def must_publish(name: str, choices: Mapping[str, Known], source: str) -> None:
    """Raise ValueError unless `source`, if it is not "", is a source of the network."""
    if source and source not in choices:
        raise ValueError(
            f"{name} is published by {', '.join(choices)}, not by {source!r}; `reslab weights` "
            "lists all"
        )


def known_networks() -> dict[str, dict[str, Known]]:
    """Return all networks by name and source; of several sources, the first is the default."""
    networks: dict[str, dict[str, Known]] = {
        name: {SOURCE: network} for name, network in packaged().items()
    }
    for row in PUBLISHED:
        networks.setdefault(row.name, {})[row.source] = row
    return networks


def weights_folder() -> Path:
    """Return the folder of published weights: $RESLAB_WEIGHTS, or one in the user's cache."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("RESLAB_WEIGHTS") or user_cache_path("reslab") / "weights")


def torch_folder() -> Path:
    """Return the folder in which torchvision and timm keep the files that they downloaded."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def made_file(row: Published, digest: str) -> Path:
    """Return the path of the model file that is made of the published file with this SHA-256."""
    return weights_folder() / f"{row.name}-{row.source}-{digest[:8]}.safetensors"


def ready_file(row: Published) -> Path | None:
    """Return the model file of published weights if it has been made, or None."""
    pattern = made_file(row, row.digest or "?" * 8).name
    return next(iter(sorted(weights_folder().glob(pattern))), None)


def published_file(row: Published) -> Path | None:
    """Return the published file if it is on this machine, under its published name."""
    places = (weights_folder(), torch_folder())
    return next((place / row.file for place in places if (place / row.file).is_file()), None)


def present_at(row: Published) -> Path | None:
    """Return where published weights are on this machine, or None."""
    return ready_file(row) or published_file(row)


def model_file_of(row: Published) -> Path:
    """Return the model file of published weights; download and make it if necessary."""
    if ready := ready_file(row):
        return ready
    folder = weights_folder()
    prepare_folder(folder)
    with waiting_for(folder):
        if ready := ready_file(row):  # made by another process in the meantime
            return ready
        given = published_file(row)
        file = given or downloaded(row, folder)
        digest = hashlib.sha256(read_regular(file)).hexdigest()
        if not digest.startswith(row.digest):
            raise ValueError(
                f"{file} has the SHA-256 {digest[:16]}..., but the published one begins with "
                f"{row.digest}: delete it, and it is downloaded again"
            )
        from reslab.pretrained.convert import write_model

        made = made_file(row, digest)
        write_model(row, file, made)
        if given is None:
            file.unlink()
    return made


def downloaded(row: Published, folder: Path) -> Path:
    """Download a published file into the folder, and return its path.

    Raise ValueError, with instructions for a download by hand, if that fails.
    """
    to = folder / row.file
    if row.address is None:
        raise ValueError(
            f"{row.full_name} has no address that a program can fetch: download {row.file} and "
            f"{MEAN} in a browser ({AUTHORS_PAGE}), and put both into {folder}"
        )
    if sys.stderr is not None:
        print(f"reslab: downloading {row.address}", file=sys.stderr)
    try:
        download(row.address, to, lambda digest: digest.startswith(row.digest))
    except ValueError as error:
        raise ValueError(
            f"{row.full_name} cannot be downloaded ({error}): get {row.address} elsewhere, and put "
            f"it into {folder}"
        ) from None
    return to


@contextmanager
def waiting_for(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that several processes do not download the same file."""
    printed = sys.stderr is None
    while (handle := lock(folder)) is None:
        if not printed:
            print(f"reslab: waiting for another process that writes to {folder}", file=sys.stderr)
            printed = True
        time.sleep(PAUSE)
    try:
        yield
    finally:
        unlock(handle)
