"""Open shards of other programs, such as webdataset's, as a set of images.

There is no index of `reslab pack`: the members are listed when the set is opened. The order of the
set is that of the shards' names, and of the members in each shard.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reslab.data.class_list import arrange_classes, read_class_list
from reslab.data.datasets import EncodedImages
from reslab.data.labels.images import in_order, numbered
from reslab.data.left_out import CLASS_LIST, count_of, count_suffixes, shorten, suffix_of
from reslab.data.parts import WHOLE_FOLDER
from reslab.data.shards.foreign import (
    NAME_FILES,
    NAME_LISTS,
    foreign_parts,
    shards_by_part,
    shards_in,
)
from reslab.data.shards.index import Index, Shard
from reslab.data.shards.listings import list_all
from reslab.data.shards.reader import MAX_OPEN, LocalShards, ShardReader, make_set
from reslab.data.shards.samples import Listing
from reslab.runtime.files import read_text
from reslab.runtime.json_text import parse_json

NAME_KEYS = ("names", "classes", "class_names", "classnames", "label_names", "labels")
MAX_COMPRESSED = 4 << 30  # bytes of compressed shards, which are decompressed to be read
MAX_NAMES_BYTES = 1 << 26


def open_foreign(root: Path, part: str, place: Path, names: Path | None) -> EncodedImages:
    """Open the shards in `root` that belong to a part of the folder `place`.

    `names` is a class list; without one, names of classes are also found in files such as
    classnames.txt. Raise ValueError if a shard is damaged, or if no image has a class.
    """
    found = shards_in(root)
    parts = foreign_parts(root) or {}
    shards = parts.get(part, found.names)
    groups = shards_by_part(found.names)
    if part == WHOLE_FOLDER and len(groups) > 1:
        named = next(names[0] for key, names in groups.items() if key)
        raise ValueError(
            f"{root} has shards of a part ({named}) beside others ({groups[None][0]}): move them "
            "into train/ and val/, or rename them"
        )
    _check_compressed(root, shards)
    listings = list_all([root / name for name in shards])
    _drop_captions(root, listings, names)
    images = _build(root, part, listings)
    images, name_notes = _with_names(images, root, place, names, listings)
    used = {name for names in parts.values() for name in names} or {*found.names}
    unread = [name for name in found.names if name not in used]
    notes = (*_notes(root, listings), *_beside(found.others, unread))
    source = f"the {part} shards of {root}" if part in parts else f"the shards of {root}"
    return replace(images, notes=notes + name_notes, source=source)


def _check_compressed(root: Path, shards: Sequence[str]) -> None:
    """Raise ValueError if there are too many compressed shards to decompress them when training."""
    compressed = [root / name for name in shards if not name.lower().endswith(".tar")]
    size = sum(path.stat().st_size for path in compressed)
    if size > MAX_COMPRESSED or len(compressed) > MAX_OPEN:
        raise ValueError(
            f"{root} has {size / 1e9:,.1f} GB of compressed shards, whose images cannot be read in "
            f"any order: decompress them, for example with `gunzip {compressed[0]}`"
        )


def _drop_captions(root: Path, listings: Sequence[Listing], names: Path | None) -> None:
    """Leave out images with a text that may be a caption, unless a class list has all texts.

    Raise ValueError if there are no others.
    """
    samples = [sample for listing in listings for sample in listing.samples]
    texts = {sample.label for sample in samples if sample.caption}
    listed = read_class_list(names) if names and texts else ()
    known = {word for class_ in listed for word in class_}
    if texts <= known:
        return
    if all(sample.caption for sample in samples):
        raise ValueError(
            f"{root} has no classes: its texts (such as {min(texts)[:40]!r}) may be captions; "
            f"if they are classes, list them in {CLASS_LIST}"
        )
    for listing in listings:
        listing.unlabelled += [sample.file for sample in listing.samples if sample.caption]
        listing.samples = [sample for sample in listing.samples if not sample.caption]


def _build(root: Path, part: str, listings: Sequence[Listing]) -> EncodedImages:
    """Build the set of all samples, with their labels as the ids and names of the classes."""
    samples = [(n, sample) for n, listing in enumerate(listings) for sample in listing.samples]
    if not samples:
        example = next((file for listing in listings for file in listing.unlabelled), root)
        raise ValueError(
            f"{root} has no classes: {example} has neither .cls nor a class in .json, such as "
            '{"label": 3}'
        )
    ids = in_order({sample.label for _, sample in samples})
    numbers = {id_: number for number, id_ in enumerate(ids)}
    columns = {
        "labels": [numbers[sample.label] for _, sample in samples],
        "shards": [number for number, _ in samples],
        "offsets": [sample.offset for _, sample in samples],
        "lengths": [sample.length for _, sample in samples],
    }
    index = Index(
        root.resolve().name if part == WHOLE_FOLDER else part,
        ids,
        ids,
        None,
        None,
        tuple(Shard(listing.shard, listing.size, "") for listing in listings),
        [sample.file for _, sample in samples],
        {name: np.array(column, np.int64) for name, column in columns.items()},
    )
    return make_set(index, ShardReader(index, LocalShards(root)))


def _with_names(
    images: EncodedImages,
    root: Path,
    place: Path,
    names: Path | None,
    listings: Sequence[Listing],
) -> tuple[EncodedImages, tuple[str, ...]]:
    """Name the classes by a class list, or if they are numbers, by a list of names or by .json.

    Also return a line if numbers stay without names.
    """
    if names:
        ids = tuple(numbered(set(images.ids), names)[id_] for id_ in images.ids)
        return arrange_classes(replace(images, ids=ids, classes=ids), root, names), ()
    if not all(id_.isdecimal() for id_ in images.ids):
        return images, ()
    largest = int(images.ids[-1])
    for path, listed in _name_lists(root, place):
        if largest < len(listed):
            classes = tuple(listed[int(id_)] for id_ in images.ids)
            return replace(images, classes=classes), ()
        raise ValueError(
            f"class {largest} of {root} is not in {path}, which has the names of 0 to "
            f"{len(listed) - 1}"
        )
    pairs = {(s.label, s.name) for listing in listings for s in listing.samples if s.name}
    by_number = dict(pairs)
    if len(pairs) == len(by_number) == len(set(by_number.values())) == len(images.ids):
        return replace(images, classes=tuple(by_number[id_] for id_ in images.ids)), ()
    note = f"the classes are numbers: to name them, list the names in {NAME_LISTS[0]}, one per line"
    return images, (note,)


def _name_lists(root: Path, place: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the lists of class names in `root` and the folders above it, up to `place`."""
    for folder in (root, *root.parents):
        if not folder.is_relative_to(place):
            return
        for name in (*NAME_LISTS, *NAME_FILES):
            path = folder / name
            if not path.is_file():
                continue
            text = read_text(path, MAX_NAMES_BYTES)
            listed = (
                [line.strip() for line in text.splitlines() if line.strip()]
                if name in NAME_LISTS
                else _names_in(_parsed(text))
            )
            if listed:
                yield path, listed


def _parsed(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:  # the file of another program
        return None


def _names_in(content: Any) -> list[str]:
    """Return the first list of names in a JSON document, such as Hugging Face's features."""
    if not isinstance(content, dict):
        return []
    for key, value in content.items():
        if isinstance(value, Mapping) and value and all(str(k).isdecimal() for k in value):
            value = [value.get(str(number)) for number in range(len(value))]  # id2label
        is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
        if is_list and value and key.lower() in (*NAME_KEYS, "id2label"):
            return value
    return next((names for value in content.values() if (names := _names_in(value))), [])


def _notes(root: Path, listings: Sequence[Listing]) -> Iterator[str]:
    """Yield a line for each kind of member that is left out, and for shards that are missing."""
    others = sum((listing.others for listing in listings), start=Counter[str]())
    if others:
        yield count_suffixes(others, " in shards")
    unlabelled = [file for listing in listings for file in listing.unlabelled]
    further = [file for listing in listings for file in listing.further]
    disputed = [file for listing in listings for file in listing.disputed]
    for files, what in (
        (unlabelled, "without a class left out"),
        (further, "beside another one of a sample left out"),
        (disputed, "with another class in .json than in .cls, which is taken"),
    ):
        if files:
            yield f"{count_of(len(files), 'image')} {what}, such as {files[0]}"
    if lonely := sum(listing.lonely for listing in listings):
        yield f"{count_of(lonely, 'label')} in shards without an image left out"
    if missing := _missing([listing.shard for listing in listings]):
        numbers = shorten(missing)
        yield f"{root} has no {numbers}: copy the missing shards too, if they belong to the set"


def _missing(shards: Sequence[str]) -> list[str]:
    """Return the names missing from a series of numbered shards."""
    series: dict[tuple[str, str], dict[int, str]] = {}
    for name in shards:
        if match := re.fullmatch(r"(.*?)(\d{1,9})(\D*)", name):
            series.setdefault((match[1], match[3]), {})[int(match[2])] = match[2]
    missing = []
    for (before, after), numbers in series.items():
        width = len(next(iter(numbers.values())))
        gaps = set(range(min(numbers), max(numbers))) - numbers.keys()
        if len(gaps) <= len(numbers):
            missing += [f"{before}{number:0{width}}{after}" for number in sorted(gaps)]
    return missing


def _beside(others: Sequence[str], unread: Sequence[str]) -> Iterator[str]:
    """Yield a line for shards of other parts, and one for other files beside the shards."""
    if unread:
        number = count_of(len(unread), "shard")
        yield f"{number} left out, as the names are of another part or of none: {shorten(unread)}"
    known = (CLASS_LIST, *NAME_LISTS, *NAME_FILES)
    suffixes = [suffix_of(name) for name in others if name not in known]
    if suffixes:
        yield count_suffixes(Counter(suffixes), " beside the shards")
