"""`reslab evaluate` of files of detections: no model, no image, only boxes against boxes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reslab.cli.console import print_json, print_line, print_table, to_stderr

if TYPE_CHECKING:
    from reslab.data.boxes.sets import DetectionSet
    from reslab.data.location import Location
    from reslab.detection.average_precision.measure import AveragePrecision


LISTED = 20  # classes at most; of more, the worst ones
WORST = 10


def evaluate_detections(
    files: Sequence[Path],
    data: "Location | None",
    protocol: str | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """Measure what is written in `files`, in COCO's results format, against a detection set."""
    from reslab.detection.average_precision.measure import measure
    from reslab.detection.average_precision.results import read_results

    for file in files:
        if not is_detections(file):
            raise ValueError(f"{file} is no .json of detections: evaluate models by themselves")
    if data is None:
        raise ValueError("--data: which annotations? a COCO or VOC folder, or an instances.json")
    images, usual = annotated(data)
    found = [read_results(file, images) for file in files]
    entries = [
        (str(file), measure(images, rows, protocol or usual))
        for file, rows in zip(files, found, strict=True)
    ]
    show_precision("detections", entries, page, as_json)


def show_precision(
    what: str, entries: "Sequence[tuple[str, AveragePrecision]]", page: Path | None, as_json: bool
) -> None:
    """What was measured of each entry, on standard output, and as a page where one is wanted."""
    if as_json:
        print_json([{what: name} | row.as_dict() | row.details() for name, row in entries])
    else:
        for name, row in entries:
            print_line(f"{name}  {row}")
            print_twelve(row)
        print_average_precisions(entries[-1][1])
    if page:
        from reslab.studies.page.detectors import write_precision

        to_stderr(f"report: {write_precision(entries, page)}")


def annotated(data: "Location") -> "tuple[DetectionSet, str]":
    """The boxes of a folder, or of one file of COCO's, and the protocol that goes with them."""
    from reslab.data.boxes.annotations import detection_set
    from reslab.data.boxes.coco import read_coco
    from reslab.data.boxes.folder import evaluation_part, read_annotations
    from reslab.data.location import to_folder
    from reslab.detection.average_precision.measure import usual_protocol

    data = to_folder(data, "boxes need")
    if is_detections(data):
        return detection_set(read_coco(data, data.parent, data.stem), alone=True), "coco"
    part = evaluation_part(read_annotations(data))
    return detection_set(part, alone=True), usual_protocol(part)


def is_detections(path: Path) -> bool:
    """A file of detections, not a model: by its name alone, since it may be missing."""
    return path.suffix == ".json"


def print_twelve(precision: "AveragePrecision") -> None:
    """COCO's twelve numbers with what each is of."""
    from reslab.detection.average_precision.measure import COCO_NUMBERS

    if not precision.coco:
        return
    rows = [
        [name[:2].upper(), iou, size, str(most), percent(precision.coco[name])]
        for name, (iou, size, most) in COCO_NUMBERS.items()
    ]
    print_table("", "IoU", "size", "detections", "%", rows=rows)


def print_average_precisions(precision: "AveragePrecision") -> None:
    """Class by class, or the worst where there are many."""
    known = [row for row in precision.per_class if row["boxes"]]
    shown = known if len(known) <= LISTED else sorted(known, key=lambda row: row["ap_50"])[:WORST]
    keys = {"AP@.5": "ap_50"} | ({"AP@[.5:.95]": "ap_50_95"} if precision.coco else {})
    lines = [
        [row["class"], str(row["boxes"]), str(row["detections"]),
         *(percent(row[key]) for key in keys.values())]
        for row in shown
    ]  # fmt: skip
    print_table("class", "boxes", "detections", *keys, rows=lines)
    if len(shown) < len(known):
        print_line(f"the worst {len(shown)} of {len(known)} classes; --json has all")


def percent(value: float) -> str:
    """With one digit, as papers print it; a dash where there is nothing to be found."""
    return "–" if value != value else f"{value:.1f}"
