"""The folder doctor: what in a folder of images would spoil a run, and what is worth knowing.

Every file is read and decoded once. Images are equal if they decode to equal pixels, so copies
in another format or with another EXIF block are found, and nothing that only looks alike.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from reslab.data.class_names import read_class_list
from reslab.data.doctor.advice import ADVICE, FEW, IMBALANCE, SMALL, Advice
from reslab.data.doctor.box_advice import BOX_ADVICE
from reslab.data.doctor.inspect import FORMS, ODDITIES, PROBLEMS, ImageTable
from reslab.data.doctor.scan import WHOLE_FOLDER, FolderScan, NameTable, ScannedPart
from reslab.data.folder import class_list


@dataclass(frozen=True)
class Case:
    """The files or folders that one thing is wrong with, and more of it."""

    files: tuple[str, ...]  # relative to the folder that was checked
    note: str = ""


@dataclass(frozen=True)
class Cases:
    """Cases made when they are looked at: a million of them are a million numbers."""

    rows: Sequence[int] | np.ndarray
    case: Callable[[int], Case]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Case]:
        return (self.case(int(row)) for row in self.rows)


@dataclass(frozen=True)
class Finding:
    """All cases of one kind."""

    kind: str  # a key of ADVICE or BOX_ADVICE
    cases: Cases

    @property
    def advice(self) -> Advice:
        return ADVICE[self.kind] if self.kind in ADVICE else BOX_ADVICE[self.kind]


def made_finding(kind: str, cases: Iterable[Case]) -> Finding:
    listed = list(cases)
    return Finding(kind, Cases(range(len(listed)), listed.__getitem__))


def diagnose(listing: FolderScan, facts: ImageTable, size: int) -> tuple[Finding, ...]:
    """All that is found, what spoils a run first. `size` is the side of the net's images."""
    found = (
        *_of_arrangement(listing),
        *_of_files(listing, facts),
        *_of_sizes(listing, facts, size),
        *_of_copies(listing, facts),
        *_of_others(listing),
        *_of_classes(listing),
    )
    return in_order_of(ADVICE, found)


def in_order_of(advice: Iterable[str], found: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that have cases, as their kinds are ordered."""
    places = {kind: place for place, kind in enumerate(advice)}
    with_cases = (finding for finding in found if len(finding.cases))
    return tuple(sorted(with_cases, key=lambda it: places[it.kind]))


def _of_arrangement(listing: FolderScan) -> Iterator[Finding]:
    for kind in {fault.kind: None for fault in listing.faults}:
        faults = [fault for fault in listing.faults if fault.kind == kind]
        yield made_finding(kind, (Case((fault.place,), fault.note) for fault in faults))
    yield made_finding("class list", _faults_of_class_list(listing))


def _faults_of_class_list(listing: FolderScan) -> Iterator[Case]:
    for part in listing.parts:
        if part.packed:
            continue
        assert isinstance(listing.folder, Path), "what is afar is packed"
        path = class_list(listing.folder / part.prefix, listing.folder)
        if path is None:
            continue
        place = str(path.relative_to(listing.folder))
        try:
            listed = dict(read_class_list(path))
        except ValueError as error:
            yield Case((place,), str(error))
            continue
        for id_ in part.classes:
            if id_ not in listed:
                yield Case((part.prefix + id_,), f"not in {place}")


def _of_files(listing: FolderScan, facts: ImageTable) -> Iterator[Finding]:
    for number, kind in enumerate(PROBLEMS, start=1):
        rows = np.flatnonzero(facts.problems == number)
        yield Finding(kind, Cases(rows, lambda row: Case((listing.path(row),), facts.reasons[row])))
    for bit, kind in enumerate(ODDITIES):
        rows = np.flatnonzero(facts.looks & (1 << bit))
        yield Finding(kind, Cases(rows, partial(_odd, listing, facts, kind)))


def _odd(listing: FolderScan, facts: ImageTable, kind: str, row: int) -> Case:
    note = f"a {FORMS[facts.forms[row]].upper()}" if kind == "wrong suffix" else ""
    return Case((listing.path(row),), note)


def _of_sizes(listing: FolderScan, facts: ImageTable, size: int) -> Iterator[Finding]:
    def case(row: int) -> Case:
        width, height = facts.sizes[row]
        return Case((listing.path(row),), f"{width} x {height}")

    shorter = facts.sizes.min(axis=1)
    good = facts.problems == 0
    yield Finding("too small", Cases(np.flatnonzero(good & (shorter * SMALL < size)), case))
    small = good & (shorter < size) & (shorter * SMALL >= size)
    yield Finding("small", Cases(np.flatnonzero(small), case))


def _of_copies(listing: FolderScan, facts: ImageTable) -> Iterator[Finding]:
    """Images that decode to the same pixels; each group of them is one case."""
    rows, starts = equal_rows(facts.pixels, np.flatnonzero(facts.problems == 0))

    def case(group: int) -> Case:
        copies = np.sort(rows[starts[group] : starts[group + 1]]).tolist()
        return Case(tuple(listing.path(row) for row in copies))

    labels = _differ(np.asarray(listing.class_of), rows, starts)
    parts = _differ(np.asarray(listing.part_of), rows, starts)
    within = "repeated" if len(listing.parts) > 1 else "repeated, no parts"
    yield Finding("two labels", Cases(np.flatnonzero(labels), case))
    yield Finding("leak", Cases(np.flatnonzero(~labels & parts), case))
    yield Finding(within, Cases(np.flatnonzero(~labels & ~parts), case))


def equal_rows(pixels: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of `rows` hold the same 16 bytes as another: (found, starts).

    Group g is found[starts[g] : starts[g + 1]].
    """
    keys = pixels[rows].view(np.uint64)  # [N, 2]
    order = np.lexsort(keys.T)
    keys = keys[order]
    same = (keys[1:] == keys[:-1]).all(axis=1)  # as the one before
    follows = np.concatenate(([False], same))[: len(order)]
    leads = np.concatenate((same, [False]))[: len(order)] & ~follows
    member = follows | leads
    starts = np.flatnonzero(leads[member])
    return rows[order[member]], np.append(starts, np.count_nonzero(member))


def _differ(values: np.ndarray, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Of each group, whether its rows have several values."""
    if len(rows) == 0:
        return np.zeros(0, bool)
    of_rows = values[rows]
    return np.maximum.reduceat(of_rows, starts[:-1]) != np.minimum.reduceat(of_rows, starts[:-1])


def _of_others(listing: FolderScan) -> Iterator[Finding]:
    def misnamed(row: int) -> Case:
        return Case((listing.misnamed[row],), f"a {listing.formats[row].upper()}")

    yield Finding("unknown suffix", Cases(range(len(listing.misnamed)), misnamed))
    for kind, names in (("other file", listing.others), ("outside", listing.outside)):
        yield Finding(kind, Cases(range(len(names)), partial(_named_files, names)))


def _named_files(names: NameTable, row: int) -> Case:
    return Case((names[row],))


def _of_classes(listing: FolderScan) -> Iterator[Finding]:
    empty = (
        part.prefix + id_
        for part in listing.parts
        for id_, count in part.classes.items()
        if count == 0
    )
    yield made_finding("empty class", (Case((place,)) for place in empty))
    parts = {part.name: part for part in listing.parts}
    train, test = parts.get("train") or parts.get(WHOLE_FOLDER), parts.get("validation")
    if train:
        yield from _of_training_classes(train, alone=test is None)
    if train and test:
        yield made_finding("class not in training", _missing(test, train))
        yield made_finding("class not in validation", _missing(train, test))


def _of_training_classes(part: ScannedPart, alone: bool) -> Iterator[Finding]:
    """Of a part that is trained on; `alone`: the validation part is drawn from it."""
    counts = {id_: count for id_, count in part.classes.items() if count}
    single = [id_ for id_, count in counts.items() if count == 1 and alone]
    place = part.prefix or "."
    yield made_finding("no classes", [] if part.classes else [Case((place,))])
    yield made_finding("one class", [Case((place,))] if len(part.classes) == 1 else [])
    yield made_finding("one image", (Case((part.prefix + id_,)) for id_ in single))
    few = ((id_, count) for id_, count in counts.items() if count < FEW and id_ not in single)
    yield made_finding("few images", (Case((part.prefix + id_,), f"{count}") for id_, count in few))
    largest = max(counts, key=counts.__getitem__, default="")
    small = ((id_, count) for id_, count in counts.items() if count * IMBALANCE < counts[largest])
    beside = f"{largest} has {counts.get(largest, 0):,}"
    yield made_finding(
        "imbalance",
        (Case((part.prefix + id_,), f"{count:,}; {beside}") for id_, count in small),
    )


def _missing(here: ScannedPart, there: ScannedPart) -> list[Case]:
    """The classes with images here and none there."""
    ids = (id_ for id_, count in here.classes.items() if count and id_ not in there.classes)
    return [Case((here.prefix + id_,)) for id_ in ids]
