"""Recognise which columns of a table hold file names, labels, parts and groups."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from reslab.data.formats import IMAGE_SUFFIXES
from reslab.data.image_finder import ImageFinder
from reslab.data.left_out import shorten
from reslab.data.part_names import Part, part_of_name

# Names of columns, without spaces and punctuation, from the most to the least explicit.
FILES = (
    "filename filenames file files filepath filepaths fname path paths relpath imagepath "
    "imagepaths imgpath imagefile imagefilename imgfile imagename imgname",
    "image images img imgs photo photos imageindex",
    "imageid imgid photoid fileid isicid idcode uuid",
    "id ids uid key name",
)
LABELS = (
    "label labels class classes classname classlabel labelname labeltext category categories "
    "categoryname target targets y groundtruth gt wnid synset predictionstring findinglabels",
    "classid labelid categoryid classindex classidx labelindex classnumber",
    "species breed variety disease diagnosis dx finding emotion artist style genre tag tags type "
    "level grade name",
)
PARTS = "split splits subset partition"
# of parts only if they have values such as train
MAYBE_PARTS = "set dataset part fold folds group mode stage usage phase datatype"
FLAGS: dict[str, tuple[Part, Part]] = {
    "istrain": ("train", "validation"),
    "istraining": ("train", "validation"),
    "istrainingimage": ("train", "validation"),
    "isvalid": ("validation", "train"),
    "isvalidation": ("validation", "train"),
    "isval": ("validation", "train"),
    "istest": ("test", "train"),
}
GROUPS = (
    "patient patientid subject subjectid participant participantid person personid individual",
    "group groupid video videoid videoname sequence sequenceid clip clipid session sessionid "
    "lesion lesionid case caseid slide slideid study studyid animal animalid",
)
BOXES = ("xmin ymin xmax ymax", "x1 y1 x2 y2", "bbox", "boundingbox", "bboxx bboxy")
TRUE, FALSE = ("1", "true", "yes", "1.0"), ("0", "false", "no", "0.0")


KNOWN = frozenset(" ".join((*FILES, *LABELS, PARTS, *GROUPS)).split())
NOT_LABELS = frozenset(" ".join((*FILES, "index unnamed unnamed0")).split())
FEW = 10  # rows that may all have different labels
BOX = 5  # columns of a box with a class, beside the file
SHOWN = 12  # columns named in a message
Rows = Sequence[Sequence[str]]


class NotLabels(ValueError):
    """Raised if no table says which class each image has; the message says why."""


@dataclass(frozen=True)
class Columns:
    """The positions of a table's columns; `label` is None if each class has its own column."""

    count: int
    file: int
    label: int | None = None
    classes: dict[int, str] = field(default_factory=dict)  # names of the columns of 0 and 1
    part: int | None = None
    flags: tuple[Part, Part] | None = None  # the parts for true and false, if `part` has flags
    group: int | None = None
    boxes: bool = False  # whether there are columns of boxes, which are not read
    notes: tuple[str, ...] = ()


def is_header(row: Sequence[str], rows: Sequence[Sequence[str]], finder: ImageFinder) -> bool:
    """Return whether the first row of a table, before `rows`, has the names of the columns."""
    known = sum(_plain(cell) in KNOWN for cell in row)
    if known > 1:
        return True
    if any(finder.has(cell) for cell in row if cell):
        return False
    return known == 1 or not {cell for later in rows for cell in later} & set(row)


def choose_columns(header: Sequence[str], rows: Rows, finder: ImageFinder) -> Columns:
    """Choose the columns by their names, and by the values in the first rows.

    `header` is empty if the columns have no names. Raise NotLabels.
    """
    if not header:
        return _unnamed_columns(rows, finder)
    names = [_plain(cell) for cell in header]
    if any(re.fullmatch(r"pixels?\d*", name) for name in names):
        raise NotLabels("its rows have pixels, not the names of image files")
    file = _file_column(header, names, rows, finder)
    part, flags, notes = _part_column(header, names, rows)
    group = next((at for at in _positions(GROUPS, names) if at not in (file, part)), None)
    columns = Columns(
        len(header),
        file,
        part=part,
        flags=flags,
        group=group,
        boxes=any(set(words.split()) <= set(names) for words in BOXES),
        notes=notes,
    )
    taken = (file, part, group)
    if columns.boxes:
        columns = replace(columns, notes=(*notes, "its boxes are not read"))
    label = _label_column(header, names, rows, taken)
    if label is not None:
        return replace(columns, label=label)
    ignored = {at for at, name in enumerate(names) if not name or name in NOT_LABELS}
    rest = [at for at in range(len(names)) if at not in ignored and at not in taken]
    binary = [at for at in rest if all(is_flag(row[at]) for row in rows)]
    if len(binary) > 1:
        return replace(columns, classes={at: header[at].strip() for at in binary})
    return replace(columns, label=_guess_label(header, rest, rows, columns.boxes))


def _file_column(
    header: Sequence[str], names: Sequence[str], rows: Rows, finder: ImageFinder
) -> int:
    """Return the column with the most explicit name whose files are found."""
    named = list(_positions(FILES, names))
    for at in (*named, *range(len(names))):
        if any(finder.has(row[at]) for row in rows if row[at]):
            return at
    if not named:
        raise NotLabels(f"none of its columns ({shorten(header, SHOWN)}) has the names of files")
    return named[0]


def _label_column(
    header: Sequence[str], names: Sequence[str], rows: Rows, taken: Sequence[int | None]
) -> int | None:
    """Return the column called label or class; of a name and a number, the name."""
    for tier in LABELS:
        found = [at for at in _positions((tier,), names) if at not in taken]
        if len(found) > 1:
            pairs = {tuple(row[at] for at in found) for row in rows}
            if any(len({pair[k] for pair in pairs}) < len(pairs) for k in range(len(found))):
                listed = shorten(header[at] for at in sorted(found))
                raise NotLabels(
                    f"its columns {listed} may all be the labels: rename the one with the classes "
                    "to label, and the others to something else"
                )
            found.sort(key=lambda at: all(is_number(row[at]) for row in rows))
        if found:
            return found[0]
    return None


def _part_column(
    header: Sequence[str], names: Sequence[str], rows: Rows
) -> tuple[int | None, tuple[Part, Part] | None, tuple[str, ...]]:
    """Return the column of parts, the parts that its flags mean, and a note on an unused one."""
    notes: tuple[str, ...] = ()
    for name, flags in FLAGS.items():
        if name in names and all(is_flag(row[names.index(name)]) for row in rows):
            return names.index(name), flags, notes
    for at in _positions((PARTS, MAYBE_PARTS), names):
        values = {row[at] for row in rows}
        if any(map(part_of_name, values)):
            return at, None, notes
        if names[at] in PARTS.split():
            raise NotLabels(
                f"its column {header[at]!r} has {shorten(sorted(values), 3)}: write train, val or "
                "test, or give the column another name"
            )
        if names[at] in ("fold", "folds"):
            notes = (f"its column {header[at]!r} has numbers, not train, val and test: not used",)
    return None, None, notes


def _guess_label(header: Sequence[str], rest: Sequence[int], rows: Rows, boxes: bool) -> int:
    """Return the only column that can be the labels."""
    if boxes:
        raise NotLabels("it has boxes, and no column called label or class")
    columns = f"its columns are {shorten(header, SHOWN)}"
    if not rest:
        raise NotLabels(f"it has no labels: {columns}")
    if len(rest) > 1:
        raise NotLabels(
            f"none is called label or class ({columns}): rename the one with the classes to label"
        )
    return _repeated(rest[0], rows, f"column {header[rest[0]]!r}")


def _unnamed_columns(rows: Rows, finder: ImageFinder) -> Columns:
    """Choose the columns of a table without a header."""
    count = len(rows[0])
    found = [sum(map(finder.has, {row[at] for row in rows})) for at in range(count)]
    if not any(found):
        found = [
            sum(row[at].lower().endswith(IMAGE_SUFFIXES) for row in rows) for at in range(count)
        ]
    if not any(found):
        raise NotLabels("none of its columns has the names of image files")
    file = max(range(count), key=lambda at: ("/" in rows[0][at], found[at]))
    rest = [at for at in range(count) if at != file]
    if len(rest) == BOX:
        return _label_of_boxes(count, file, rest, rows)
    if len(rest) != 1:
        raise NotLabels(
            f"it has {count} columns without names: add a first line that calls one of them file "
            "and one of them label"
        )
    return Columns(count, file, label=_repeated(rest[0], rows, "the column beside the files"))


def _label_of_boxes(count: int, file: int, rest: Sequence[int], rows: Rows) -> Columns:
    """Return the columns of a table with one box per image, as in Tiny ImageNet."""
    words = [at for at in rest if not all(is_number(row[at]) for row in rows)]
    if len(words) != 1 or len({row[file] for row in rows}) < len(rows):
        raise NotLabels("it has boxes: a file, four numbers and a class in each row")
    return Columns(count, file, label=words[0], boxes=True, notes=("its boxes are not read",))


def _repeated(at: int, rows: Rows, column: str) -> int:
    """Return a column without a known name if it can be the labels."""
    if len(rows) > FEW and len({row[at] for row in rows}) == len(rows):
        raise NotLabels(f"{column} has another value in each row: these are not classes")
    return at


def _positions(tiers: Iterable[str], names: Sequence[str]) -> Iterator[int]:
    """Yield the positions of the columns with known names, in the order of `tiers`."""
    for name in " ".join(tiers).split():
        if name in names:
            yield names.index(name)


def is_number(text: str) -> bool:
    """Return whether a cell is a number."""
    return re.fullmatch(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", text.strip().lower()) is not None


def is_flag(text: str) -> bool:
    """Return whether a cell is 0 or 1, true or false."""
    return text.strip().lower() in (*TRUE, *FALSE)


def is_true(text: str) -> bool:
    """Return whether a flag is set."""
    return text.strip().lower() in TRUE


def _plain(name: str) -> str:
    """Return a column's name without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())
