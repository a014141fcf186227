"""Find the files of annotated images, also under names that other systems and tools wrote.

Annotations may name an image by its path on another machine, with backslashes, in another Unicode
form, in other case or with another suffix. Such a name stands for the only image that fits it.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

from reslab.data.boxes.annotations import Annotations
from reslab.data.boxes.sets import UNKNOWN_SIZE
from reslab.data.class_folders import Problem, is_system_folder
from reslab.data.class_names import clean
from reslab.data.decode import BadImage, image_size
from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.left_out import count_of, count_suffixes, suffix_of
from reslab.data.part_names import Part, part_of_name
from reslab.runtime.files import MAX_BYTES, open_regular

# annotations, lists and notes, which may lie beside images
COMPANIONS = (
    ".json", ".xml", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".data", ".names", ".labels",
    ".cache", ".md",
)  # fmt: skip
HEADER = 1 << 16  # bytes of a file that usually contain the image's size


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


def image_stem(name: str) -> str:
    """Return a file name without the suffix of an image."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def images_below(folder: Path) -> Iterator[str]:
    """Yield the images in a folder and its subfolders, relative to it.

    Hidden folders and those of the system are skipped.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and not is_system_folder(name)
        )
        prefix = os.path.relpath(place, folder).replace(os.sep, "/")
        prefix = "" if prefix == "." else f"{prefix}/"
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != ".":
                yield prefix + name


class ImageIndex:
    """Find images by names that are not exactly theirs."""

    def __init__(self, files: Iterable[str]) -> None:
        self._by_form: list[dict[str, list[str]]] = [{} for _ in FORMS]
        for file in files:
            name = file.rpartition("/")[2]
            for form, table in zip(FORMS, self._by_form, strict=True):
                table.setdefault(form(name), []).append(file)

    def find(self, written: str) -> list[str]:
        """Return the images that fit a name equally well; several if it is ambiguous."""
        path = written.replace("\\", "/")
        if "://" in path:
            path = path.partition("?")[0]
        for text in dict.fromkeys((path, unquote(path))):
            name = text.rpartition("/")[2]
            for form, table in zip(FORMS, self._by_form, strict=True):
                if found := table.get(form(name)):
                    return _nearest(text, found)
        return []


def folded(name: str) -> str:
    return clean(name).casefold()


def _folded_stem(name: str) -> str:
    return folded(image_stem(name.strip()))


FORMS = (clean, folded, _folded_stem)  # of the names of files, from strict to loose


def _nearest(path: str, candidates: list[str]) -> list[str]:
    """Return the candidates that share the most folders with `path` from the end."""
    folders = folded(path).split("/")[-2::-1]

    def shared(candidate: str) -> int:
        pairs = zip(folders, folded(candidate).split("/")[-2::-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    most = max(map(shared, candidates))
    return [candidate for candidate in candidates if shared(candidate) == most]


@dataclass(frozen=True)
class Located:
    """The images of a list of names."""

    root: Path
    files: list[str]  # relative to `root`
    renamed: dict[str, str] = field(default_factory=dict)  # from names as written to images
    not_found: int = 0  # number of names


def place_images(
    part: Annotations, places: Sequence[Path], shown: str, named: Part | None = None
) -> None:
    """Find the images of `part` in one of `places`, and read the sizes that its file lacks.

    `shown` is the annotation file in messages, and `named` the part in its name.
    """
    located = locate(part.files, places, part.root, named)
    part.root, part.files = located.root, located.files
    if located.renamed:
        part.remarks.append(other_names(located.renamed, len(part), shown))
    read_sizes(part, shown)


def other_names(renamed: dict[str, str], count: int, shown: str) -> Problem:
    """Return the remark on images that were found under another name than the annotated one."""
    name, image = next(iter(renamed.items()))
    note = f"{len(renamed):,} of {count:,} images have another name on disk: "
    if clean(name) == clean(image):
        note += f"{image} is written in another Unicode form"
    else:
        note += f"{name!r} is {image}"
    return Problem("other name", shown, note)


def no_box(count: int, shown: str) -> Problem:
    """Return the remark on annotated objects that have no box."""
    return Problem("no box", shown, f"{count_of(count, 'annotation')} without a box: left out")


def read_sizes(part: Annotations, shown: str) -> None:
    """Read the sizes that are not annotated from the images; `shown` is the annotation file."""
    without = [row for row, size in enumerate(part.sizes) if size == UNKNOWN_SIZE]
    for row in without:
        part.sizes[row] = size_of(part.root, part.files[row])
    if without:
        note = (
            f"{len(without):,} of {len(part):,} images have no size in the annotations: read from "
            "the files"
        )
        part.remarks.append(Problem("no size", shown, note))


def locate(written: list[str], places: Sequence[Path], folder: Path, part: Part | None) -> Located:
    """Find images by their names in annotations, in the first place that has most of them.

    If none has, every form of the names is looked for in each place. A name that fits no image
    there, or several, stays as it is. Images in folders of `folder` that are named for another part
    fit no name: an image that is missing in training is not one of validation with its name.
    """
    for place in places:
        missing = sum(1 for _ in missing_images(place, written))
        if not missing:
            return Located(place, written)
        if missing * 2 < len(written):  # this is the place, and images are missing
            places = [place]
            break
    results = [_locate_in(place, written, _images_of_part(place, folder, part)) for place in places]
    return min(results, key=lambda located: located.not_found)


def _images_of_part(place: Path, folder: Path, part: Part | None) -> Iterator[str]:
    """Yield the images below a place in `folder`, except in folders named for another part."""
    inside = f"{place.relative_to(folder).as_posix()}/" if place.is_relative_to(folder) else ""
    others: dict[str, bool] = {}
    for image in images_below(place):
        path = inside + image.rpartition("/")[0]
        if part and path not in others:
            others[path] = any(part_of_name(name) not in (None, part) for name in path.split("/"))
        if not part or not others[path]:
            yield image


def _locate_in(root: Path, written: list[str], images: Iterable[str]) -> Located:
    missing = list(dict.fromkeys(missing_images(root, written)))
    index = ImageIndex(images)
    taken = set(written).difference(missing)
    claims: dict[str, list[str]] = {}
    for name in missing:
        if len(found := index.find(name)) == 1:
            claims.setdefault(found[0], []).append(name)
    renamed = {
        names[0]: image for image, names in claims.items() if len(names) == 1 and image not in taken
    }
    files = [renamed.get(name, name) for name in written]
    return Located(root, files, renamed, len(missing) - len(renamed))


def unlisted_images(folder: Path, parts: Iterable[Annotations]) -> Problem | None:
    """Return the remark on images in a folder that none of its annotation files or lists names."""
    listed: set[str] = set()
    for part in parts:
        below = os.path.relpath(part.root, folder).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        listed.update(prefix + file for file in part.files)
        listed.update(os.path.normpath(prefix + file) for file in part.files if ".." in file)
    counts: dict[str, int] = {}
    for image in images_below(folder):
        if image not in listed:
            place = f"{os.path.dirname(image) or '.'}/"
            counts[place] = counts.get(place, 0) + 1
    if not counts:
        return None
    places = sorted(counts, key=counts.__getitem__, reverse=True)
    rest = sum(counts[place] for place in places[1:])
    more = f"; {rest:,} more in {', '.join(places[1:4])}" if rest else ""
    note = f"not listed, and not used: {count_of(counts[places[0]], 'image')}{more}"
    return Problem("not listed", places[0], note)


def other_files(parts: Iterable[Annotations]) -> Problem | None:
    """Return the remark on files beside listed images that are neither images nor annotations."""
    places = {
        part.root / folder for part in parts for folder in set(map(os.path.dirname, part.files))
    }
    suffixes: Counter[str] = Counter()
    known = (*IMAGE_SUFFIXES, *COMPANIONS)
    for place in places:
        try:
            with os.scandir(place) as entries:
                others = [entry for entry in entries if not entry.name.lower().endswith(known)]
                names = [entry.name for entry in others if not entry.is_dir()]
        except (OSError, ValueError):  # reported with the images that are missing
            continue
        suffixes.update(suffix_of(name) for name in names if name[0] != ".")
    if not suffixes:
        return None
    return Problem("other files", min(places).name, count_suffixes(suffixes, " beside the images"))


def what_lies_in(root: Path, missing: str) -> str:
    """Return why an image is not found in a folder: what fits its name, or what is there."""
    images = list(images_below(root))
    found = ImageIndex(images).find(missing)
    if len(found) > 1:
        return f"{len(found)} images fit this name: {', '.join(sorted(found)[:3])}"
    if found:
        return f"{found[0]} fits several names in the annotations"
    if images:
        return f"{root} has {count_of(len(images), 'image')}, such as {min(images)}"
    return f"{root} has no images"


def size_of(root: Path, file: str) -> tuple[int, int]:
    """Read an image's (width, height) from its header; return (0, 0) if it cannot be read."""
    try:
        with open_regular(root / file, MAX_BYTES) as opened:
            head = opened.read(HEADER)
            try:
                return image_size(head, file)
            except BadImage:  # the header is longer, or its size is at the end
                return image_size(head + opened.read(), file)
    except (OSError, ValueError):  # ValueError: a damaged image, or an invalid file name
        return UNKNOWN_SIZE
