"""Open folders of images to classify; each split is packed or has one subfolder per class."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reslab.data.array_sets.folder import open_arrays
from reslab.data.boxes.foreign import name_boxes
from reslab.data.boxes.instead import explaining_boxes, refuse_boxes, refuse_foreign_boxes
from reslab.data.class_folders import (
    FolderReader,
    OnProblem,
    Problem,
    class_ids,
    images_by_class,
    list_classes,
    refuse,
    subfolders,
)
from reslab.data.class_list import arrange_classes, class_list, listed_ids
from reslab.data.class_names import ClassIndex, alike_in_words
from reslab.data.datasets import (
    EncodedImages,
    FolderSplits,
    Splits,
    align_labels,
    split_validation,
)
from reslab.data.groups import split_by_group
from reslab.data.labels.flat import find_parts, open_flat
from reslab.data.labels.folder import LabelledFolder, open_labelled
from reslab.data.left_out import LeftOut, count_of, shorten
from reslab.data.levels import check_levels, levels_note, part_names_note
from reslab.data.location import Location, Url
from reslab.data.parts import (
    WHOLE_FOLDER,
    WRAPPERS,
    Division,
    divide,
    division_notes,
    relative,
)
from reslab.data.shards.opening import open_packed
from reslab.data.unlabelled import without_classes


@dataclass(frozen=True)
class FolderPart:
    """One split of a folder, or an unsplit folder as a whole."""

    name: str  # "train", "validation" or WHOLE_FOLDER
    root: Location
    prefix: str  # from the opened folder to `root`: "val/", or ""
    images: EncodedImages

    @property
    def source(self) -> str:
        """What has the labels, for messages: the rows of a table, or shards; else ""."""
        return self.images.source

    @property
    def packed(self) -> bool:
        """Whether the images are packed in shards."""
        return not isinstance(self.images.read, FolderReader)

    @property
    def classes(self) -> dict[str, int]:
        """The number of images in each class."""
        counts = self.images.labels.bincount(minlength=len(self.images.ids))
        return dict(zip(self.images.ids, counts.tolist(), strict=True))


def open_folder(
    place: Location, *, validation: float = 0.2, seed: int = 0, names: Path | None = None
) -> FolderSplits:
    """Open the training and validation splits of a folder.

    From an unsplit folder, the fraction `validation` of each class is split off, chosen by `seed`.
    `names` is a class list to use instead of the folder's classes.csv.
    """
    return split_folder(read_folder(place, names), validation, seed)


def read_folder(place: Location, names: Path | None = None) -> FolderSplits | EncodedImages:
    """Return both splits of a folder, or all images of an unsplit folder."""
    with explaining_boxes(place):
        return _read_folder(place, names)


def _read_folder(place: Location, names: Path | None) -> FolderSplits | EncodedImages:
    labelled = labels_in_file(place, names)
    if labelled:
        parts, notes = labelled_parts(labelled), labelled.notes
        if parts.keys() == {"validation"}:
            refuse(no_training_part(parts["validation"].source))
    else:
        division = find_parts(place, refuse)
        parts = {
            name: FolderPart(name, root, prefix_of(root, place), _open(name, root, place, names))
            for name, root in part_roots(division, place, refuse).items()
        }
        notes = division_notes(division, place)
    check_parts(parts, lambda problem: refuse(name_boxes(place, problem)))
    if "validation" not in parts:
        (whole,) = parts.values()
        if whole.name == "train":
            verb = f"{whole.source} are" if whole.source else f"{whole.prefix} is"
            notes += (f"{verb} split, as there is no validation part",)
        return replace(whole.images, notes=notes + whole.images.notes)
    train = replace(parts["train"].images, name="train")
    notes += train.notes + unmeasured_classes(parts["train"], parts["validation"])
    test = align_labels(train, parts["validation"].images)
    return Splits(replace(train, notes=notes), replace(test, name="validation"))


def split_folder(
    images: FolderSplits | EncodedImages, validation: float, seed: int = 0
) -> FolderSplits:
    """Return existing splits unchanged, or split the images of an unsplit folder."""
    if isinstance(images, EncodedImages):
        if images.groups is not None:
            return split_by_group(images, validation, seed)
        return split_validation(images, validation, seed)
    return images


def open_whole_folder(place: Location, *, names: Path | None = None) -> EncodedImages:
    """Open an unsplit folder as one set, or the validation split of a split folder."""
    with explaining_boxes(place):
        return _open_whole_folder(place, names)


def _open_whole_folder(place: Location, names: Path | None) -> EncodedImages:
    if labelled := labels_in_file(place, names):
        part = list(labelled.parts.values())[-1]
        return replace(part, notes=labelled.notes)
    division = find_parts(place, refuse)
    name, root = list(division.parts.items())[-1]
    whole = _open(name, root, place, names)
    if name == "validation":
        return replace(whole, name=name)
    return replace(whole, notes=division_notes(division, place) + whole.notes)


def open_folder_parts(folder: Path) -> dict[str, EncodedImages]:
    """Open a folder's splits, keyed by their subfolders in a packed copy.

    The keys are "train" and "validation", or "." for an unsplit folder.
    """
    with explaining_boxes(folder):
        parts = _open_folder_parts(folder)
    refuse_foreign_boxes(folder, next(iter(parts.values())).ids)
    return parts


def _open_folder_parts(folder: Path) -> dict[str, EncodedImages]:
    if labelled := labels_in_file(folder, None):
        return _labelled_folder_parts(labelled, folder)
    names = list(find_parts(folder, refuse).parts)
    if len(names) == 2:
        sets = open_folder(folder)
        return {"train": sets.train, "validation": sets.test}
    return {"." if names == [WHOLE_FOLDER] else names[0]: open_whole_folder(folder)}


def _labelled_folder_parts(labelled: LabelledFolder, folder: Path) -> dict[str, EncodedImages]:
    """Return the splits to pack; a packed copy has no groups, so they are split before."""
    names = list(labelled.parts)
    whole = labelled.parts[names[0]]
    if len(names) == 2 or whole.groups is not None:
        sets = open_folder(folder)
        return {"train": sets.train, "validation": sets.test}
    return {"." if names == [WHOLE_FOLDER] else names[0]: replace(whole, notes=labelled.notes)}


def labels_in_file(place: Location, names: Path | None = None) -> LabelledFolder | None:
    """Open a folder whose images are labelled in a file, or the file; None for class folders."""
    if isinstance(place, Url):
        return None
    folder = place.parent if place.is_file() else place
    names = names or class_list(folder, folder)
    if (arrays := open_arrays(place, names)) is not None:
        return arrays
    return open_labelled(place, names, listed_ids(names))


def labelled_parts(labelled: LabelledFolder) -> dict[str, FolderPart]:
    """Return the parts of a folder whose images are labelled in a file."""
    return {
        name: FolderPart(name, labelled.root, "", images) for name, images in labelled.parts.items()
    }


def no_training_part(where: str) -> Problem:
    """Return the problem with labels for testing alone."""
    line = f"{where} are for testing: there are no labels to train on"
    return Problem("no training part", ".", refusal=line)


def part_roots(division: Division, place: Location, on_problem: OnProblem) -> dict[str, Location]:
    """Return the location of each split that a run reads, keyed by name."""
    if division.parts.keys() == {"validation"}:
        root = division.parts["validation"]
        has = prefix_of(root, place) or "shards to test on"
        line = f"{place} has {has} but no train/ to train on"
        on_problem(Problem("no training part", ".", refusal=line))
    return division.parts


def prefix_of(root: Location, place: Location) -> str:
    """Return the path prefix of a split's files, relative to the folder `place`."""
    path = relative(root, place)
    return f"{path}/" if path else ""


def unmeasured_classes(train: FolderPart, test: FolderPart) -> tuple[str, ...]:
    """Return a line about the classes without validation images, if there are any."""
    index = ClassIndex([id_ for id_, count in test.classes.items() if count])
    positions = index.match([(id_,) for id_ in train.images.ids])
    ids = [id_ for id_, at in zip(train.images.ids, positions, strict=True) if at < 0]
    if not ids:
        return ()
    error = "its error is" if len(ids) == 1 else "their errors are"
    count = count_of(len(ids), "class")
    return (f"{count} without validation images: {shorten(ids)}; {error} not measured",)


def check_parts(parts: Mapping[str, FolderPart], on_problem: OnProblem) -> None:
    """Report a single class, and classes that are only in the validation split."""
    train, test = parts.get("train") or parts.get(WHOLE_FOLDER), parts.get("validation")
    if train is None:
        return
    if len(train.images.ids) == 1:
        line = _one_class(train)
        on_problem(Problem("one class", train.prefix or ".", refusal=line))
    if test is None:
        return
    index = ClassIndex(train.images.ids)
    positions = index.match([(id_,) for id_ in test.images.ids])
    for (id_, count), position in zip(test.classes.items(), positions, strict=True):
        if count and position < 0:
            learned, tested = train.source or train.root, test.source or test.root
            line = f"class {id_!r} is in {tested} but not in {learned}: no net can learn it"
            if index.is_ambiguous((id_,)):
                line = (
                    f"class {id_!r} of {tested} matches several classes of {learned}, or the "
                    "same class as another one: rename it"
                )
            else:
                line += index.hint(id_)
            on_problem(Problem("class not in training", test.prefix + id_, refusal=line))


def _open(part: str, root: Location, place: Location, names: Path | None) -> EncodedImages:
    """Open the images below `root`, which is `place` or one of its splits."""
    images = open_packed(part, root, place, names)
    if images is None:
        images = open_flat_part(part, root, place, names)
    if images is None:
        assert isinstance(root, Path), "remote splits are packed"
        assert isinstance(place, Path), "a local split is in a local folder"
        names = names or class_list(root, place)
        left_out, listed = LeftOut(), listed_ids(names)
        ids = class_ids(
            root,
            lambda problem: refuse(name_boxes(place, problem)),
            listed=listed,
            left_out=left_out,
        )
        files = list_classes(root, ids, refuse, left_out, required=part != "validation")
        refuse_boxes(place, root, tuple(files))
        notes = left_out.notes(prefix_of(root, place))
        if part == WHOLE_FOLDER:
            check_levels(root, files, listed, refuse)
            notes += part_names_note(files)
        if part != "validation":
            notes += levels_note(files)
            alike = alike_in_words(files)
            notes += (alike,) if alike else ()
        images = replace(images_by_class(root, files), notes=notes)
    return arrange_classes(images, root, names) if names else images


def open_flat_part(
    part: str, root: Location, place: Location, names: Path | None = None
) -> EncodedImages | None:
    """Open images to test on that have no class folders, with labels from a file; None without one.

    ImageNet's validation images are distributed like this.
    """
    if part == "train" or isinstance(root, Url) or isinstance(place, Url):
        return None
    names = names or class_list(root, place)
    train = divide(place, refuse).parts.get("train")
    images = open_flat(root, place, names, train)
    return replace(images, name=part) if images and part != WHOLE_FOLDER else images


def _one_class(part: FolderPart) -> str:
    root, (id_,) = part.root, part.images.ids
    needed = "a net needs at least two classes"
    if part.source:
        return f"{part.source} have one class, {id_!r}; {needed}"
    if isinstance(root, Path) and not part.packed and id_.lower() in WRAPPERS:
        return without_classes(root / id_, [root])
    line = f"{root} has one class folder, {id_!r}; {needed}"
    inside = root / id_
    folders = isinstance(inside, Path) and inside.is_dir() and subfolders(inside)
    return f"{line}; did you mean {inside}?" if folders else line
