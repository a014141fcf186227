"""Inspect class folders, whose subfolders may be parts or the actual classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from reslab.data.class_folders import OnProblem, Problem
from reslab.data.class_names import ClassIndex, fold
from reslab.data.left_out import shorten
from reslab.data.part_names import Part, is_plain, part_of_name, without_part

STRAYS = 0.1  # the fraction of images beside the subfolders of a part
ClassFiles = Mapping[str, Sequence[str]]  # the images of each class, relative to the part


def check_levels(
    root: Path, files: ClassFiles, listed: Sequence[str], on_problem: OnProblem
) -> None:
    """Report class folders of an unsplit folder that hold parts, or that may themselves be parts.

    If all of them are `listed` in a class list, they are classes.
    """
    if not files or min(ClassIndex(listed).match([(id_,) for id_ in files])) >= 0:
        return
    inner = {id_: folders for id_ in files if (folders := folders_in(files[id_], id_, STRAYS))}
    refusal = (
        _class_and_part_names(root, list(files))
        or _divided_classes(root, files, inner)
        or _equal_folders(root, files, inner)
    )
    if refusal:
        on_problem(Problem("ambiguous parts", ".", refusal, refusal))


def part_names_note(files: ClassFiles) -> tuple[str, ...]:
    """Return a line about classes that have the name of a part."""
    named = [id_ for id_ in files if is_plain(id_)]
    if not named:
        return ()
    one = len(named) == 1
    return (
        f"{shorten(named)} {'is' if one else 'are'} read as {'a class' if one else 'classes'}, "
        f"like the folders beside {'it' if one else 'them'}: move "
        f"{'it' if one else 'them'} elsewhere if {'it is a part' if one else 'they are parts'}",
    )


def levels_note(files: ClassFiles) -> tuple[str, ...]:
    """Return a line if each class folder has several subfolders and no images beside them."""
    inner = [folders_in(files[id_], id_) for id_ in files]
    if not inner or min(map(len, inner)) < 2:
        return ()
    return (
        f"the classes are {shorten(files)}, and their subfolders are read together: if the "
        f"subfolders are the classes, list them in classes.csv, the first as "
        f"{next(iter(files))}/{inner[0][0]}",
    )


def folders_in(files: Sequence[str], folder: str, strays: float = 0.0) -> tuple[str, ...]:
    """Return the subfolders of a folder that have images.

    Returns () if more than a fraction `strays` of the images lies beside them.
    """
    start, names, beside = len(folder) + 1, set(), 0
    for file in files:
        end = file.find("/", start)
        if end >= 0:
            names.add(file[start:end])
        elif (beside := beside + 1) > strays * len(files):
            return ()
    return tuple(sorted(names))


def _class_and_part_names(root: Path, ids: Sequence[str]) -> str | None:
    """Return a refusal if folders are named after a class and a part: `cats_train`, `cats_val`."""
    by_class: dict[tuple[str, ...], dict[Part, str]] = {}
    for id_ in ids:
        if part := part_of_name(id_):
            by_class.setdefault(without_part(id_), {})[part] = id_
    for words, named in by_class.items():
        if words and "train" in named and len(named) > 1:
            class_ = "_".join(words)
            return (
                f"{root} has folders for the parts of a class, as {shorten(named.values())}: put "
                f"the parts at the top, as in train/{class_} and val/{class_}"
            )
    return None


def _divided_classes(
    root: Path, files: ClassFiles, inner: Mapping[str, Sequence[str]]
) -> str | None:
    """Return a refusal if there is a training part and another one in a class folder."""
    for id_, folders in inner.items():
        found = {part: name for name in folders if (part := part_of_name(name))}
        if "train" not in found or len(found) < 2:
            continue
        line = f"{root / id_} has the parts {shorten(found.values())}"
        if len(inner) == len(files) and len(inner) > 1:
            return (
                f"{line}, as has each folder in {root}: put the parts at the top, as in "
                f"{found['train']}/{id_}, or open one of the folders"
            )
        return f"{line}: open it, or move the other folders of {root} elsewhere"
    return None


def _equal_folders(root: Path, files: ClassFiles, inner: Mapping[str, Sequence[str]]) -> str | None:
    """Return a refusal if the folders have the same subfolders: they may be parts or levels."""
    largest = max(inner.values(), key=len, default=())
    if len(inner) < len(files) or len(inner) < 2 or len(largest) < 2:
        return None
    folded = Counter(name for folders in inner.values() for name in set(map(fold, folders)))
    shared = [name for name in largest if folded[fold(name)] > 1]
    if len(folded) == len(set(map(fold, largest))):
        shown = f"all have the same subfolders ({shorten(largest)})"
    elif len(shared) > 1 and 2 * len(shared) >= len(folded):
        shown = f"have subfolders in common ({shorten(shared)})"
    else:
        return None
    return (
        f"the folders in {root} ({shorten(inner)}) {shown}: if they are parts, name them train/ "
        "and val/, or open one of them; if they are the classes, list them in classes.csv"
    )
