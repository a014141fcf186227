"""List the samples in a shard of another program: images, each with its class.

The members of a sample have one key (webdataset): `000.jpg` with `000.cls`, the number or the name
of its class, or with `000.json`, which has it as `label` or under another usual key.
"""

import lzma
import os
import tarfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.left_out import suffix_of
from reslab.data.shards.tar_files import open_plain, read_members
from reslab.errors import os_reason
from reslab.runtime.files import open_regular
from reslab.runtime.json_text import parse_json

PEEKED = 200  # members that are looked at to recognise a shard
LONGEST_LABEL = 4096  # bytes of a .cls member
LARGEST_JSON = 1 << 20  # bytes of a .json member
CLASS_SUFFIXES = ("cls", "class", "label", "target")
# keys of a .json member that may have the class, in order of preference
LABEL_KEYS = (
    "label", "cls", "class", "class_id", "label_id", "class_idx", "label_idx", "class_index",
    "label_index", "target", "category_id", "category", "class_name", "classname", "class_label",
    "label_name", "wnid", "synset",
)  # fmt: skip
NAME_KEYS = ("class_name", "classname", "label_name", "label_text", "category_name", *LABEL_KEYS)
UNLABELLED = "-1"  # the usual number of a hidden class


@dataclass(frozen=True, slots=True)
class Sample:
    """An image in a shard."""

    file: str  # the names of the shard and of the member, joined by a slash
    offset: int  # of its first byte
    length: int
    label: str  # a number or a name
    name: str = ""  # of the class, if the label is a number and the name is known
    caption: bool = False  # whether the label is a text that may be a caption


@dataclass
class Listing:
    """The samples in a shard, and what is left out; images are named as in `Sample.file`."""

    shard: str
    size: int  # in bytes, once it is decompressed
    samples: list[Sample] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)  # members of other kinds, by suffix
    unlabelled: list[str] = field(default_factory=list)  # images without a class
    further: list[str] = field(default_factory=list)  # images beside the one of a sample
    lonely: int = 0  # classes without an image
    disputed: list[str] = field(default_factory=list)  # images with another class in .json


@dataclass
class _Record:
    """What the members of a sample say about its class."""

    fields: dict[str, Any] = field(default_factory=dict)  # "cls" and "txt": text, "json": a value
    images: list[tuple[bool, tarfile.TarInfo]] = field(default_factory=list)  # with an equal stem?


def has_samples(path: Path) -> bool:
    """Return whether a tar file begins with images and their classes."""
    keys: dict[str, set[str]] = {}
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for number, member in enumerate(tar):
                folder, base = _split(member.name)
                if not member.isfile() or _is_hidden(member.name):
                    continue
                is_image = base.lower().endswith(IMAGE_SUFFIXES)
                kind = "image" if is_image else _field(base)
                keys.setdefault(folder + base.partition(".")[0], set()).add(kind)
                if any(len(kinds - {""}) > 1 and "image" in kinds for kinds in keys.values()):
                    return True
                if number == PEEKED:
                    break
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError):
        return False
    return False


def list_samples(path: Path) -> Listing:
    """List the samples of a shard, in their order; raise ValueError, naming the shard."""
    try:
        with open_plain(path) as file:
            listing = Listing(path.name, os.fstat(file.fileno()).st_size)
            records = _read_records(path, file, listing)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({os_reason(error)})") from None
    for key, record in records.items():
        _add_sample(path, key, record, listing)
    listing.samples.sort(key=lambda sample: sample.offset)
    return listing


def _read_records(path: Path, file: BinaryIO, listing: Listing) -> dict[str, _Record]:
    """Group the members of a shard by sample."""
    records: dict[str, _Record] = {}  # by key: the name up to the last suffix
    images: dict[str, tarfile.TarInfo] = {}
    for member in read_members(path, file, listing.size):
        folder, base = _split(member.name)
        if member.isdir() or _is_hidden(member.name):
            continue
        is_image = base.lower().endswith(IMAGE_SUFFIXES)
        kind = "" if is_image else _field(base)
        if not member.isfile() or not (is_image or kind):
            listing.others["link" if member.issym() or member.islnk() else suffix_of(base)] += 1
            continue
        if "\0" in member.name or member.issparse():
            raise ValueError(f"{path}: {member.name!r} is sparse, or has an invalid name")
        if is_image:
            if member.name in images:
                raise ValueError(f"{path} has two members {member.name!r}; pack it again")
            images[member.name] = member
            continue
        record = records.setdefault(folder + _stem(base), _Record())
        if kind in record.fields:
            raise ValueError(f"{path} has two classes of {member.name!r}; pack it again")
        record.fields[kind] = _read_field(path, file, member, kind)
    _assign(images, records, listing)
    return records


def _assign(
    images: dict[str, tarfile.TarInfo], records: dict[str, _Record], listing: Listing
) -> None:
    """Add each image to the record with its stem, or else with its name up to the first dot."""
    by_key: dict[str, list[_Record]] = {}
    for key, record in records.items():
        folder, base = _split(key)
        by_key.setdefault(folder + base.partition(".")[0], []).append(record)
    for name, member in images.items():
        folder, base = _split(name)
        record = records.get(folder + base.rpartition(".")[0])
        found = by_key.get(folder + base.partition(".")[0], [])
        if record is not None:
            record.images.append((True, member))
        elif len(found) == 1:
            found[0].images.append((False, member))
        else:
            listing.unlabelled.append(f"{listing.shard}/{name}")


def _add_sample(path: Path, key: str, record: _Record, listing: Listing) -> None:
    """Add the sample of a record to the listing, or count what is left out."""
    exact = [member for is_equal, member in record.images if is_equal]
    images = exact or [member for _, member in record.images]
    if not images:
        listing.lonely += 1
        return
    if len(images) > 1:
        names = " and ".join(repr(member.name) for member in images[:2])
        raise ValueError(f"{path}: sample {key!r} has several images, {names}: keep one")
    (member,) = images
    file = f"{listing.shard}/{member.name}"
    others = (other for _, other in record.images if other is not member)
    listing.further += [f"{listing.shard}/{other.name}" for other in others]
    try:
        label, name = _label(record.fields)
    except ValueError as error:
        raise ValueError(f"{path}: {member.name!r}: {error}") from None
    caption = not label and bool(record.fields.get("txt"))
    if caption:
        label = record.fields["txt"]
    if not label or label == UNLABELLED:
        listing.unlabelled.append(file)
        return
    in_json = _from_json(record.fields["json"], LABEL_KEYS[:2]) if "json" in record.fields else ""
    if "cls" in record.fields and in_json and in_json.isdecimal() and in_json != label:
        listing.disputed.append(file)
    place = file, member.offset_data, member.size
    listing.samples.append(Sample(*place, label, name, caption))


def _label(fields: dict[str, Any]) -> tuple[str, str]:
    """Return the class that .cls or .json states, and its name if the class is a number."""
    label = fields.get("cls", "")
    content = fields.get("json")
    if not label and content is not None:
        label = _from_json(content, LABEL_KEYS)
    name = ""
    if label.isdecimal() and isinstance(content, dict):
        with suppress(ValueError):
            names = (_from_json(content, (key,)) for key in NAME_KEYS)
            name = next((text for text in names if text and not text.isdecimal()), "")
    return label, name


def _from_json(content: Any, keys: tuple[str, ...]) -> str:
    """Return the class in a .json member, "" if it has none; raise ValueError if it has several."""
    if isinstance(content, dict):
        lower = {key.lower(): value for key, value in content.items()}
        content = next((lower[key] for key in keys if lower.get(key) is not None), None)
    if isinstance(content, list) and len(content) == 1:
        (content,) = content
    if isinstance(content, float) and content.is_integer():
        content = int(content)
    if content is None:
        return ""
    if isinstance(content, str):
        return _tidy(content)
    if isinstance(content, int):
        return str(content).lower()
    raise ValueError(f"its class is {str(content)[:40]!r}: one number or name is needed")


def _read_field(path: Path, file: BinaryIO, member: tarfile.TarInfo, kind: str) -> Any:
    """Return the text of a .cls or .txt member, or the value of a .json member."""
    most = LARGEST_JSON if kind == "json" else LONGEST_LABEL
    if member.size > most:
        if kind == "txt":
            return ""  # too long for a class
        raise ValueError(f"{path}: {member.name!r} has more than {most:,} bytes")
    data = os.pread(file.fileno(), member.size, member.offset_data)
    try:
        text = data.decode("utf-8-sig")
        return parse_json(text) if kind == "json" else _tidy(text)
    except ValueError as error:
        if kind == "txt":
            return ""
        raise ValueError(f"{path}: {member.name!r} cannot be read ({error})") from None


def _tidy(text: str) -> str:
    """Return a label on one line, and a number without leading zeros."""
    text = " ".join(text.split())
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text


def _field(base: str) -> str:
    """Return what a member says about its sample: "cls", "json", "txt", or "" for nothing."""
    stem, _, suffix = base.lower().rpartition(".")
    if suffix in ("txt", "json") and stem.rpartition(".")[2] in CLASS_SUFFIXES:
        return "cls" if suffix == "txt" else "json"
    return "cls" if suffix in CLASS_SUFFIXES else suffix if suffix in ("json", "txt") else ""


def _stem(base: str) -> str:
    """Return a member's name without the suffixes of a field."""
    stem, _, suffix = base.rpartition(".")
    inner, _, last = stem.rpartition(".")
    return inner if suffix.lower() in ("txt", "json") and last.lower() in CLASS_SUFFIXES else stem


def _split(name: str) -> tuple[str, str]:
    """Return the folder of a member, "" or with a slash at its end, and its name there."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    return folder + slash, base


def _is_hidden(name: str) -> bool:
    """Return whether a member is hidden or from macOS: `._000.jpg`, `__MACOSX/000.jpg`."""
    parts = name.removeprefix("./").split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
