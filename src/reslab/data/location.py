"""Locations of images: a folder, or the URL of packed shards."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from reslab.errors import unknown_name
from reslab.runtime.text import without_secrets

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")  # of the labels of images
ARRAY_SUFFIXES = (".npy", ".npz")
URL_SCHEMES = ("http", "https", "s3", "gs", "file")


@dataclass(frozen=True)
class Url:
    """The URL of a folder, without a trailing slash.

    `query` is sent with the request for each file. It may be a signature or a token, so it is not
    part of the text that is shown and recorded.
    """

    text: str
    query: str = field(default="", repr=False)  # "?sig=..." or ""

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> "Url":
        return Url(f"{self.text}/{name}", self.query)

    @property
    def parent(self) -> "Url":
        """The folder above."""
        return Url(self.text.rsplit("/", 1)[0], self.query)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.text.rsplit("/", 1)[-1]


Location = Path | Url


def parse_location(text: str | Location) -> Location:
    """Parse a user's input as a path or URL; raise ValueError if a URL is invalid."""
    if isinstance(text, Url):
        return text
    written = str(text)  # a Path has collapsed "//" to "/"; it is refused below
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", written)
    if scheme is None:
        return Path(text)
    protocol, shown = scheme[1].lower(), without_secrets(written)
    if not written.startswith("://", scheme.end(1)):
        if protocol in URL_SCHEMES or (shown != written and not Path(text).exists()):
            raise ValueError(f"{shown}: a URL must begin with {protocol}://")
        return Path(text)
    if protocol not in URL_SCHEMES:
        raise ValueError(f"{shown}: {unknown_name('protocol', protocol, URL_SCHEMES)}")
    query = ""
    if protocol.startswith("http"):
        written, mark, query = written.partition("?")
        query = mark + query
    _check_url(written, protocol, shown)
    return Url(protocol + written[scheme.end(1) :].rstrip("/"), query)


def _check_url(written: str, protocol: str, shown: str) -> None:
    """Raise ValueError if no file name can be appended to a URL, or if it contains a password.

    `shown` is the URL without secrets; urlsplit's own messages quote what may be a password.
    """
    try:
        parts = urlsplit(written)
    except ValueError:
        raise ValueError(f"{shown}: not the name of a host, or a malformed IPv6 address") from None
    if "@" in parts.netloc:
        raise ValueError(
            f"{shown} was given with a password, which the run folder would store: "
            "put it into ~/.netrc"
        )
    try:
        port = parts.port
    except ValueError:
        raise ValueError(
            f"{shown}: the port is not a number from 1 to 65535; a password belongs in ~/.netrc"
        ) from None
    if not parts.netloc and protocol != "file":
        raise ValueError(f"{shown} has no {'host' if 'http' in protocol else 'bucket'} name")
    if port == 0 or (protocol.startswith("http") and parts.fragment):
        extra = "port 0" if port == 0 else "a fragment (#...)"
        raise ValueError(f"{shown} has {extra}: give the URL of the folder of the shards")


def is_annotation_file(place: Path) -> bool:
    """Return whether a place is a JSON file, which may hold the boxes of images."""
    return place.suffix.lower() == ".json" and os.path.isfile(place)


def is_table(place: Path) -> bool:
    """Return whether a path is a table, which may have the labels of images."""
    return place.suffix.lower() in TABLE_SUFFIXES and os.path.isfile(place)


def is_image_list(place: Path) -> bool:
    """Return whether a path is a file that stands for a set: a table of labels, or arrays."""
    return is_table(place) or (place.suffix.lower() in ARRAY_SUFFIXES and os.path.isfile(place))


def can_be_opened(place: Path) -> bool:
    """Return whether a path is a folder, a set in a file, or a file with boxes."""
    return os.path.isdir(place) or is_image_list(place) or is_annotation_file(place)


def to_folder(place: Location, use: str) -> Path:
    """Return a local folder unchanged; raise ValueError for a URL.

    The message ends with `use` and "a local folder": for example, `use` is "cifar10 needs".
    """
    if isinstance(place, Url):
        raise ValueError(
            f"{place}: only packed images for classification can be read from a URL; "
            f"{use} a local folder"
        )
    return place


def absolute(place: Location) -> str:
    """Return the absolute location, as a run records it."""
    return str(place if isinstance(place, Url) else place.resolve())
