"""Find everything in a folder of images that would spoil a run, or is worth a remark.

Images are equal if they decode to equal pixels: this finds copies in another format or with another
EXIF block, but not images that only look alike.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.box_faults import (
    box_in_words,
    faulty_boxes,
    repeated_boxes,
    repeated_ids,
    tiny_boxes,
    unknown_classes,
    unknown_in_words,
)
from reslab.data.boxes.conventions import wrong_convention
from reslab.data.boxes.image_files import missing_images
from reslab.data.boxes.sets import UNKNOWN_SIZE
from reslab.data.class_folders import Problem
from reslab.data.class_list import class_list, read_class_list
from reslab.data.class_names import ClassIndex, clean
from reslab.data.doctor.advice import ADVICE, FEW, IMBALANCE, SMALL, Advice
from reslab.data.doctor.inspect import ImageInfo
from reslab.data.doctor.scan import FolderScan
from reslab.data.folder import WHOLE_FOLDER, FolderPart
from reslab.data.formats import is_read
from reslab.data.resize import too_thin


@dataclass(frozen=True, slots=True)
class Case:
    """One instance of a problem, with the files or folders that have it."""

    kind: str  # a key of ADVICE
    files: tuple[str, ...]  # relative to the folder that was checked
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """All cases of one kind."""

    kind: str  # a key of ADVICE
    cases: list[Case]

    @property
    def advice(self) -> Advice:
        return ADVICE[self.kind]


def diagnose(scan: FolderScan, infos: list[list[ImageInfo]], size: int) -> tuple[Finding, ...]:
    """Return the findings for a folder of images to classify, in the order of ADVICE.

    `infos` has a list per split; `size` is the side of the network's input, in pixels.
    """
    outside = scan.outside if any(part.images.ids for part in scan.parts) else ()
    return _by_kind((
        *_problem_cases(scan.problems),
        *_class_list_cases(scan),
        *_image_cases(scan, infos, size),
        *_copies(scan, infos),
        *(
            Case("unknown suffix", (file,), f"a {kind.upper()}")
            if is_read(kind)
            else Case("HEIC left out", (file,))
            for file, kind in scan.misnamed
        ),
        *(Case("other file", (file,)) for file in scan.others),
        *(Case("outside", (file,), reason) for file, reason in outside),
        *_class_cases({part.name: part for part in scan.parts}),
    ))  # fmt: skip


def diagnose_boxes(
    folder: Path, parts: Sequence[Annotations], infos: list[list[ImageInfo]]
) -> tuple[Finding, ...]:
    """Return the findings for a folder of images with boxes, in the order of ADVICE.

    `parts` are the training and test splits, or an unsplit folder as a whole.
    """
    cases: list[Case] = []
    paths = [[os.path.relpath(part.root / file, folder) for file in part.files] for part in parts]
    for part, part_paths, part_infos in zip(parts, paths, infos, strict=True):
        cases += _problem_cases((*part.problems, *part.remarks))
        cases += _annotated_image_cases(part, part_paths, part_infos)
        cases += _box_cases(part)
    for group in _equal_images(infos):
        kind = "image in both parts" if len({part for part, _ in group}) > 1 else "repeated image"
        cases.append(Case(kind, tuple(paths[part][row] for part, row in group)))
    for trained in parts[:1]:
        with_boxes = set(trained.objects.names)
        without = [name for id_, name in trained.classes.items() if id_ not in with_boxes]
        cases += (Case("class without boxes", (name,)) for name in without)
    return _by_kind(cases)


def _by_kind(cases: Iterable[Case]) -> tuple[Finding, ...]:
    """Group cases into one finding per kind, in the order of ADVICE."""
    by_kind: dict[str, list[Case]] = {}
    for case in cases:
        by_kind.setdefault(case.kind, []).append(case)
    assert by_kind.keys() <= ADVICE.keys(), by_kind.keys()
    return tuple(Finding(kind, by_kind[kind]) for kind in ADVICE if kind in by_kind)


def with_training(
    findings: Sequence[Finding], refusals: Sequence[str], notes: Sequence[str]
) -> tuple[Finding, ...]:
    """Add to a folder's findings what training says of it: why it refuses the folder, or its notes.

    The findings that training refuses the folder for are shown first, in training's words.
    """
    cases = [case for finding in findings for case in finding.cases]
    for refusal in reversed(refusals):
        quoted = ((row, _quote(case, refusal)) for row, case in enumerate(cases))
        row, quote = next(((row, case) for row, case in quoted if case), (None, None))
        if row is not None:
            del cases[row]
        cases.insert(0, quote or Case("not trainable", (".",), refusal))
    return _by_kind((*cases, *(Case("note", (".",), note) for note in notes)))


def _quote(case: Case, refusal: str) -> Case | None:
    """Return the case in training's words if it is the one that training refuses; else None."""
    if ADVICE[case.kind].severity != "refused":
        return None
    place = f"{case.files[0]}: "
    if refusal in (case.note, place + case.note):
        return case
    missing = f"{os.sep}{case.files[0]} does not exist"
    same = refusal.startswith(place) or missing in refusal
    return replace(case, note=refusal) if same else None


def _problem_cases(problems: Iterable[Problem]) -> Iterator[Case]:
    for problem in problems:
        yield Case(problem.kind, (problem.place,), problem.refusal or problem.note)


def _class_list_cases(scan: FolderScan) -> Iterator[Case]:
    for part in scan.parts:
        if part.packed:
            continue
        assert isinstance(scan.folder, Path), "remote splits are packed"
        path = class_list(scan.folder / part.prefix, scan.folder)
        if path is None:
            continue
        place = str(path.relative_to(scan.folder))
        try:
            index = ClassIndex([id_ for id_, _ in read_class_list(path, part.images.ids)])
        except ValueError as error:
            yield Case("class list", (place,), str(error))
            continue
        positions = index.match([(id_,) for id_ in part.images.ids])
        for id_, position in zip(part.images.ids, positions, strict=True):
            if position < 0:
                yield Case("class list", (part.prefix + id_,), f"not in {place}")


def _image_cases(scan: FolderScan, infos: list[list[ImageInfo]], size: int) -> Iterator[Case]:
    for part, part_infos in zip(scan.parts, infos, strict=True):
        for file, info in zip(part.images.files, part_infos, strict=True):
            for kind, note in _image_faults(info, size):
                yield Case(kind, (part.prefix + file,), note)


def _image_faults(info: ImageInfo, size: int) -> Iterator[tuple[str, str]]:
    """Yield (kind, note) for each problem or oddity of an image."""
    if info.problem:
        yield info.problem, info.reason
        return
    for oddity in info.oddities:
        yield oddity, f"a {info.format.upper()}" if oddity == "wrong suffix" else ""
    if reason := too_thin(info.width, info.height):
        yield "too thin", reason
    shorter = min(info.width, info.height)
    if shorter < size:
        kind = "too small" if shorter * SMALL < size else "small"
        yield kind, f"{info.width} x {info.height}"


def _copies(scan: FolderScan, infos: list[list[ImageInfo]]) -> Iterator[Case]:
    """Yield one case per group of images that decode to the same pixels."""
    within = "repeated" if len(scan.parts) > 1 else "repeated, no parts"
    for group in _equal_images(infos):
        members = [(scan.parts[part], row) for part, row in group]
        labels = {clean(part.images.ids[int(part.images.labels[row])]) for part, row in members}
        if len(labels) > 1:
            kind = "two labels"
        else:
            kind = "leak" if len({part.name for part, _ in members}) > 1 else within
        yield Case(kind, tuple(part.prefix + part.images.files[row] for part, row in members))


def _equal_images(infos: list[list[ImageInfo]]) -> list[list[tuple[int, int]]]:
    """Return groups of images that decode to the same pixels, as (part, row)."""
    counts = Counter(info.digest for part in infos for info in part if not info.problem)
    groups: dict[int, list[tuple[int, int]]] = {}
    for part, part_infos in enumerate(infos):
        for row, info in enumerate(part_infos):
            if not info.problem and counts[info.digest] > 1:
                groups.setdefault(info.digest, []).append((part, row))
    return [groups[digest] for digest in sorted(groups)]


def _class_cases(parts: dict[str, FolderPart]) -> Iterator[Case]:
    """Yield classes with few images, far fewer than the largest, or no validation images."""
    train, test = parts.get("train") or parts.get(WHOLE_FOLDER), parts.get("validation")
    if train is None:
        return
    tested = ClassIndex(test.images.ids if test else ()).match([(id_,) for id_ in train.images.ids])
    unmeasured = {
        id_ for id_, match in zip(train.images.ids, tested, strict=True) if test and match < 0
    }
    counts = {id_: count for id_, count in train.classes.items() if count}
    most = max(counts.values(), default=0)
    largest = max(counts, key=counts.__getitem__, default="")
    for id_, count in counts.items():
        place = (train.prefix + id_,)
        if count == 1 and test is None and train.images.groups is None:
            yield Case("one image", place)  # validation images would be split off
        elif count < FEW:
            yield Case("few images", place, f"{count}")
        if count * IMBALANCE < most:
            yield Case("imbalance", place, f"{count:,} images; {largest} has {most:,}")
        if id_ in unmeasured:
            yield Case("class not in validation", place)


def _annotated_image_cases(
    part: Annotations, paths: Sequence[str], infos: Sequence[ImageInfo]
) -> Iterator[Case]:
    missing = set(missing_images(part.root, part.files))
    annotated = set(part.objects.images)
    for row, (file, path, info) in enumerate(zip(part.files, paths, infos, strict=True)):
        annotated_size = part.sizes[row]
        if file in missing:
            yield Case("missing image", (path,))
        elif info.problem == "too large":
            yield Case("image too large", (path,), info.reason)
        elif info.problem:
            yield Case("bad image", (path,), info.reason)
        elif info.turn >= 5 and (info.height, info.width) == annotated_size != annotated_size[::-1]:
            note = f"annotated at its stored size, {info.height} x {info.width}"
            yield Case("stored orientation", (path,), note)
        elif annotated_size not in ((info.width, info.height), UNKNOWN_SIZE):
            wide, high = annotated_size
            note = f"{info.width} x {info.height}, but annotated as {wide} x {high}"
            yield Case("other size", (path,), note)
        elif row in annotated and info.turn > 1 and (info.turn < 5 or info.width == info.height):
            yield Case("turned by EXIF", (path,), f"EXIF orientation {info.turn}")
        if row not in annotated:
            yield Case("no boxes", (path,))


def _box_cases(part: Annotations) -> Iterator[Case]:
    yield from _problem_cases(repeated_ids(part))
    for row in unknown_classes(part).tolist():
        yield _box_case("unknown class", part, row, unknown_in_words(part, row))
    if problem := wrong_convention(part):  # the other faults follow from it
        yield Case(problem.kind, (problem.place,), problem.note)
        return
    yield from _problem_cases(tiny_boxes(part))
    kinds = faulty_boxes(part) | {"repeated box": repeated_boxes(part)}
    for kind, rows in kinds.items():
        for row in rows.tolist():
            yield _box_case(kind, part, row, box_in_words(part, row))


def _box_case(kind: str, part: Annotations, row: int, words: str) -> Case:
    file = part.files[part.objects.images[row]]
    return Case(kind, (part.place(row),), f"{words}: {file}")
