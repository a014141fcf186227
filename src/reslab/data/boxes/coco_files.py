"""Find COCO's annotation files in a folder by their content, and the images they may refer to."""

import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from reslab.data.boxes.tree import IMAGE_FOLDERS, Folder, inner_folders, scan
from reslab.data.part_names import Part, part_of_name
from reslab.runtime.files import MAX_LIST_BYTES, open_regular

# names that promise COCO instances, even if the file is malformed
NAMED = re.compile(r"(instances(?!.*result).*|annotations|_annotations\.coco)\.json", re.IGNORECASE)
IN_ANNOTATIONS = re.compile(NAMED.pattern + r"|(train|val|test)[^/]*\.json", re.IGNORECASE)
ANNOTATION_FOLDER = re.compile(r"(?i:annot\w*|labels?|jsons?|coco\w*)")
# COCO's files for other tasks, with the same three lists
OTHER_TASKS = re.compile(r"(?i:keypoints|captions|panoptic|stuff|densepose|lvis|results?)")
KEYS = (b'"images"', b'"annotations"', b'"categories"')
OBJECTS = re.compile(rb'"(bbox|segmentation)"|"annotations"\s*:\s*\[\s*\]')
MAX_FILES = 100  # in one folder; more are annotations of one image each
MAX_PLACES = 64  # folders where images are looked for
TRIED = 20  # images that are looked for in each folder


def find_coco_near(folder: Path) -> list[Path]:
    """Return the files with COCO instances in a folder and its annotations/.

    A JSON file has them if it has images, annotations with boxes, and categories.
    """
    near = [scan(folder, 0)]
    near += [
        scan(path, 0) for path in inner_folders(folder) if ANNOTATION_FOLDER.fullmatch(path.name)
    ]
    return _instances(near)


def find_coco(tree: Folder) -> list[Path]:
    """Return the files with COCO instances wherever they lie in a scanned folder."""
    return _instances(list(tree.walk()))


def named_coco(folder: Path) -> list[Path]:
    """Return the files that are COCO instances by their name, whatever their content is."""
    near = (folder, *inner_folders(folder))
    return [
        place.path / name
        for place in (scan(path, 0) for path in near)
        for name in place.json
        if _is_named(place.path, name) and _is_file(place.path / name)
    ]


def _is_named(place: Path, name: str) -> bool:
    in_annotations = place.name.lower() == "annotations"
    return bool((IN_ANNOTATIONS if in_annotations else NAMED).fullmatch(name))


def _instances(places: Sequence[Folder]) -> list[Path]:
    """Return the files with COCO instances; beside one, also files that are so by name alone.

    Reading a damaged file then fails; if it were ignored, its images would be in no part.
    """
    found: list[Path] = []
    by_name: list[Path] = []
    for place in places:
        names = [name for name in place.json if _is_named(place.path, name)]
        names = place.json if len(place.json) <= MAX_FILES else names
        for name in names:
            keys = keys_in(place.path / name)
            if len(keys) > len(KEYS) or (_is_named(place.path, name) and keys):
                found.append(place.path / name)
            elif NAMED.fullmatch(name):
                by_name.append(place.path / name)
    found = sorted(found + by_name) if found and by_name else found
    return [path for path in found if not OTHER_TASKS.search(path.stem)] or found


def keys_in(path: Path) -> list[bytes]:
    """Return which keys of COCO instances occur in a file, and a key of an object's outline."""
    try:
        with (
            open_regular(path, MAX_LIST_BYTES) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            keys = [key for key in KEYS if data.find(key) >= 0]
            match = OBJECTS.search(data) if len(keys) == len(KEYS) else None
            return [*keys, match.group()] if match else keys
    except (OSError, ValueError):  # ValueError: an empty file
        return []


def coco_part(path: Path, folder: Path) -> Part | None:
    """Return the part of an annotation file, by its name or by the folders it lies in."""
    inside = path.parent.relative_to(folder).parts if path.is_relative_to(folder) else ()
    names = (path.stem, *reversed(inside))
    return next((part for name in names if (part := part_of_name(name))), None)


def year_of(path: Path) -> str:
    """Return the year in a file's name, as in instances_train2014.json, or "" if there is none."""
    match = re.search(r"(?<!\d)(19|20)\d\d(?!\d)", path.stem)
    return match.group() if match else ""


def image_places(path: Path, folder: Path, files: Sequence[str]) -> list[Path]:
    """Return the folders where the images `files` of an annotation file may lie, likely ones first.

    Folders named like the file or its part come first. Other folders are likely only if they have
    one of the first images.
    """
    stem = re.sub(r"^(instances|annotations)_?", "", path.stem)  # train2017
    places = [folder / name for name in (stem, f"images/{stem}") if stem]
    part = coco_part(path, folder)
    of_part, of_none, of_others = [], [], []
    for place in _image_folders(path, folder):
        other = coco_part(place / "images", folder)
        if any(_is_file(place / file) for file in files[:TRIED]):
            (of_none if not other else of_part if other == part else of_others).append(place)
    places += of_part
    places.append(folder / "images")
    if path.parent == folder or not ANNOTATION_FOLDER.fullmatch(path.parent.name):
        places.append(path.parent)
    # the same names in several folders are ambiguous
    places += [*_single(of_none), folder, *_single(of_others)]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def _single(places: list[Path]) -> list[Path]:
    return places if len(places) == 1 else []


def _image_folders(path: Path, folder: Path) -> Iterator[Path]:
    """Yield the folders near an annotation file that may hold its images."""
    homes = dict.fromkeys((path.parent, path.parent.parent, folder))
    for home in homes:
        if home.is_relative_to(folder):
            for place in inner_folders(home)[:MAX_PLACES]:
                yield place
                if place.name.lower() in IMAGE_FOLDERS:
                    yield from inner_folders(place)[:MAX_PLACES]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # not the name of a file
        return False
