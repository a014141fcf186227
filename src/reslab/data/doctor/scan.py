"""List the content of a folder of images, and all problems with its layout.

The folder is traversed with the same functions as when a data set is opened (`data/folder.py`).
Opening a data set fails at the first problem; a scan collects all problems and the unread files.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from reslab.data.boxes.foreign import name_boxes
from reslab.data.class_folders import (
    Problem,
    class_ids,
    format_by_content,
    images_by_class,
    is_folder,
    list_classes,
    list_folder,
)
from reslab.data.class_list import class_list, listed_ids
from reslab.data.datasets import EncodedImages
from reslab.data.folder import (
    FolderPart,
    check_parts,
    labelled_parts,
    labels_in_file,
    no_training_part,
    open_flat_part,
    part_roots,
    prefix_of,
    unmeasured_classes,
)
from reslab.data.labels.flat import find_parts
from reslab.data.labels.folder import LabelledFolder
from reslab.data.left_out import CLASS_LIST, LeftOut
from reslab.data.levels import check_levels
from reslab.data.location import Location, Url, is_image_list
from reslab.data.parts import WHOLE_FOLDER, division_notes, entries_beside, in_words
from reslab.data.shards.opening import open_packed


@dataclass
class FolderScan:
    """The splits of a folder, its problems, and the files that a run does not read.

    All paths are relative to `folder`. `misnamed` are images without an image suffix, with their
    formats; `others` are further files in class folders, and `outside` are images and folders
    outside class folders.
    """

    folder: Location
    parts: list[FolderPart] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    misnamed: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    outside: list[tuple[str, str]] = field(default_factory=list)  # with a reason
    detailed: list[str] = field(
        default_factory=list
    )  # notes of training on files that are listed here

    def __len__(self) -> int:
        return sum(len(part.images) for part in self.parts)


def scan_folder(folder: Location) -> FolderScan:
    """List the images that a run would read, and all problems, without decoding any image."""
    if isinstance(folder, Path) and not (folder.is_dir() or is_image_list(folder)):
        raise ValueError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}")
    scan = FolderScan(folder)
    try:
        labelled = labels_in_file(folder)
    except ValueError as error:
        scan.problems.append(Problem("labels", ".", str(error), str(error)))
        return scan
    if labelled:
        return _scan_labelled(scan, labelled)
    try:
        division = find_parts(folder, scan.problems.append)
    except ValueError as error:
        if isinstance(folder, Url):  # a wrong URL, like a wrong path, is the caller's mistake
            raise
        scan.problems.append(Problem("unreadable folder", ".", str(error), str(error)))
        return scan
    roots = part_roots(division, folder, scan.problems.append)
    for name, root in roots.items():
        prefix = prefix_of(root, folder)
        images = _scan_part(scan, name, root, prefix)
        if images is not None:
            scan.parts.append(FolderPart(name, root, prefix, images))
    _check_parts(scan)
    scan.detailed += division_notes(division, folder)
    if isinstance(folder, Path):
        _list_outside(scan, entries_beside(division, folder))
        for beside, reason in division.beside.items():
            scan.outside.append((prefix_of(beside, folder), in_words(beside, reason) or reason))
    scan.problems = [name_boxes(folder, problem) for problem in scan.problems]
    return scan


def _scan_labelled(scan: FolderScan, labelled: LabelledFolder) -> FolderScan:
    """Add the parts of a folder whose images are labelled in a file."""
    scan.folder = labelled.root
    parts = labelled_parts(labelled)
    scan.parts += parts.values()
    if parts.keys() == {"validation"}:
        scan.problems.append(no_training_part(parts["validation"].source))
    _check_parts(scan)
    return scan


def _check_parts(scan: FolderScan) -> None:
    parts = {part.name: part for part in scan.parts}
    check_parts(parts, scan.problems.append)
    if "train" in parts and "validation" in parts:
        scan.detailed += unmeasured_classes(parts["train"], parts["validation"])


def _scan_part(scan: FolderScan, name: str, root: Location, prefix: str) -> EncodedImages | None:
    """Open the images of a split; return None if it cannot be opened."""
    try:
        packed = open_packed(name, root, scan.folder)
    except ValueError as error:
        scan.problems.append(Problem("shards", prefix or ".", str(error), str(error)))
        return None
    if packed is not None:
        return packed
    try:
        flat = open_flat_part(name, root, scan.folder)
    except ValueError as error:
        scan.problems.append(Problem("labels", prefix, str(error), str(error)))
        return None
    if flat is not None:
        return flat
    assert isinstance(root, Path), "remote splits are packed"
    assert isinstance(scan.folder, Path), "a local split is in a local folder"
    try:
        listed = listed_ids(class_list(root, scan.folder))
        left_out = LeftOut()
        ids = class_ids(root, scan.problems.append, prefix, listed, left_out)
    except ValueError as error:
        scan.problems.append(Problem("unreadable folder", prefix or ".", str(error), str(error)))
        return None
    linked = _linked_classes(root, ids, prefix)
    scan.problems += linked.values()
    files = list_classes(
        root,
        [id_ for id_ in ids if id_ not in linked],
        scan.problems.append,
        left_out,
        prefix=prefix,
        required=name != "validation",
        on_other=partial(_add_other, scan),
    )
    if name == WHOLE_FOLDER:
        check_levels(root, files, listed, scan.problems.append)
    _list_outside(scan, list_folder(root))
    listed_files = LeftOut(left_out.files, left_out.folder_links, left_out.loose)
    scan.detailed += listed_files.notes(prefix)
    return images_by_class(root, files)


def _linked_classes(root: Path, ids: Sequence[str], prefix: str) -> dict[str, Problem]:
    """Return the class folders that are links to another class or to a parent folder."""
    real_root = Path(os.path.realpath(root))
    seen = {str(parent): "a parent folder" for parent in (real_root, *real_root.parents)}
    linked = {}
    for id_ in ids:
        real = os.path.realpath(root / id_)
        if real in seen:
            linked[id_] = Problem("linked class", prefix + id_, f"links to {seen[real]}")
        seen.setdefault(real, f"the same files as {prefix}{id_}")
    return linked


def _add_other(scan: FolderScan, file: str, entry: os.DirEntry[str]) -> None:
    """Classify and record a link to a folder, or a file without an image suffix."""
    if is_folder(entry):
        scan.problems.append(Problem("linked folder", file, f"links to {os.readlink(entry)}"))
    elif kind := format_by_content(entry):
        scan.misnamed.append((file, kind))
    else:
        scan.others.append(file)


def _list_outside(scan: FolderScan, entries: Iterable[os.DirEntry[str]]) -> None:
    """Record the files beside the class folders or the parts."""
    for entry in entries:
        if not is_folder(entry) and entry.name != CLASS_LIST:
            scan.outside.append((os.path.relpath(entry.path, str(scan.folder)), ""))
