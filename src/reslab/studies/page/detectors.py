"""Write report pages for detectors: finished runs, and average precisions."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.data.decode import BadImage
from reslab.detection.average_precision.measure import AveragePrecision, measure
from reslab.detection.average_precision.results import read_results
from reslab.detection.drawing import draw_detections
from reslab.detection.predict import SHOWN_SCORE
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import OpenedSets, open_detection_data
from reslab.detection.task import DETECTIONS_FILE
from reslab.evaluation.mistakes import INLINE
from reslab.studies.page.figures import draw_learning, draw_precisions
from reslab.studies.page.findings import detector_findings, measured_findings, watched_images
from reslab.studies.page.page import Album, Heading, Page, write_html, write_page
from reslab.studies.page.tables import class_table, detector_tables, runs_csv, unique
from reslab.studies.records import Detectors, Record, group_by_recipe
from reslab.training.recipe import Recipe

ALBUM_IMAGES = 8
SOURCE_SIDE = 480  # longer side of an image when boxes are drawn on it, in pixels
PAGE_SIDE = 400  # longer side of the drawing on the page
ALBUM_QUALITY = 88  # of JPEG, without chroma subsampling because box outlines are thin
SINGLE_WIDTH = 6.4  # inches, for a figure across the whole page
PRECISION_CAPTION = (
    "Interpolated precision over recall at IoU 0.5: the highest precision at this recall or "
    "above. Bold: the mean over the classes that have boxes."
)
LEARNING_CAPTION = (
    "Left: mAP@.5 over iterations, on {images} during training and on all test images at the end. "
    "Right: training error, the percentage of sampled regions that are misclassified. Curves are "
    "means over the seeds."
)
# the settings that determine a run's images: data, folder, years, validation
ImageSource = tuple[str, str | None, str, float]


def write_detectors(
    records: Sequence[Record[DetectionRecipe]],
    out: Path,
    heading: Heading,
    trunks: Sequence[Record[Recipe]] = (),
) -> Path:
    """Write the report page for finished runs; return its path.

    `trunks` are the classifiers whose weights the detectors started from, if known.
    """
    groups = group_by_recipe(records)
    labelled = dict(zip(unique([group.first.label for group in groups]), groups, strict=True))
    final, reasons = final_detections(labelled)
    caption = LEARNING_CAPTION.format(images=watched_images(groups[0]))
    figures = {"learning.svg": (draw_learning(labelled), caption)}
    if final:
        drawing = draw_precisions([(run.label, run.precision) for run in final])
        figures["precision.svg"] = (drawing, PRECISION_CAPTION)
    page = Page(
        heading=heading,
        findings=[
            *detector_findings(labelled, trunks),
            *(f"No images and no precision over recall for {reason}" for reason in reasons),
        ],
        figures=figures,
        tables=detector_tables(labelled),
        albums=albums_of(final),
    )
    return write_page(page, [*groups, *group_by_recipe(trunks)], out, runs_csv(labelled))


def write_precision(entries: Sequence[tuple[str, AveragePrecision]], out: Path) -> Path:
    """Write `report.html` for named average precisions; return its path."""
    page = Page(
        heading=("Average precision", "How much is detected, and how precisely?"),
        findings=[line for entry in entries for line in measured_findings(*entry)],
        figures={
            f"precision{index}.svg": (
                draw_precisions([(precision.set_name, precision)], SINGLE_WIDTH),
                f"{name}. {PRECISION_CAPTION}",
            )
            for index, (name, precision) in enumerate(entries)
        },
        tables=[
            class_table("Table", [(name, row.as_dict() | row.details()) for name, row in entries])
        ],
    )
    return write_html(page, out)


@dataclass(frozen=True)
class FinalDetections:
    """The final detections of a run, image by image."""

    label: str
    images: DetectionSet
    detections: Sequence[Detections]
    precision: AveragePrecision  # with its curves, which a run does not store


def final_detections(
    groups: Mapping[str, Detectors],
) -> tuple[list[FinalDetections], list[str]]:
    """Read the final detections of each recipe's first run.

    Also return the reason for each run that has none, for example that its images are gone.
    """
    opened: dict[ImageSource, OpenedSets] = {}  # runs on a page usually share their images
    final: list[FinalDetections] = []
    reasons: list[str] = []
    for label, group in groups.items():
        try:
            final.append(read_detections(group.first, label, opened))
        except (OSError, ValueError) as error:
            reasons.append(f"{label}: {error}")
    return final, reasons


def read_detections(
    record: Record[DetectionRecipe], label: str, opened: dict[ImageSource, OpenedSets]
) -> FinalDetections:
    """Read and measure the final detections of a run.

    Raise ValueError or OSError if its test images have changed or are gone.
    """
    folder, recipe = record.environment["data"], record.recipe
    source = (recipe.data, folder, recipe.years, recipe.validation)
    if source not in opened:
        opened[source] = open_detection_data(recipe, Path(folder) if folder else None)
    sets, protocol = opened[source]
    images, count = sets.test, record.report["n"]
    if len(images) != count:
        raise ValueError(f"it was tested on {count} images, but now there are {len(images)}")
    detections = read_results(record.path / DETECTIONS_FILE, images)
    return FinalDetections(label, images, detections, measure(images, detections, protocol))


def albums_of(final: Sequence[FinalDetections]) -> list[Album]:
    """Return an album for each set of images, in order of first appearance."""
    families: dict[tuple[str, ...], list[FinalDetections]] = {}
    for run in final:
        families.setdefault(tuple(run.images.files), []).append(run)
    return [album_of(family) for family in families.values()]


def album_of(family: Sequence[FinalDetections]) -> Album:
    """Return an album of the first images of a set that can be decoded."""
    images = family[0].images
    rows: list[tuple[str, list[str]]] = []
    for index, file in enumerate(images.files):
        if len(rows) == ALBUM_IMAGES:
            break
        try:
            rows.append((file, draw_row(index, images, family)))
        except (BadImage, OSError):
            continue
    return Album(
        title="Detections",
        note=f"The first {len(rows)} of the {len(images):,} images of {images.name}, not "
        f"hand-picked, with the boxes whose score is {SHOWN_SCORE} or more.",
        columns=["ground truth", *(run.label for run in family)],
        rows=rows,
    )


def draw_row(index: int, images: DetectionSet, family: Sequence[FinalDetections]) -> list[str]:
    """Return drawings of an image: its ground truth, then each run's detections."""
    image = images.scaled_image(index)
    reduce = [1 / factor for factor in image.ratio]
    truth = images.truths[index]
    boxes = Detections(truth.boxes, torch.ones(len(truth)), truth.labels).scaled(*reduce)
    drawings = [draw_image(image.pixels, boxes, images.classes, scores=False)]
    for run in family:
        detections = run.detections[index]
        shown = detections.take(detections.scores >= SHOWN_SCORE).scaled(*reduce)
        drawings.append(draw_image(image.pixels, shown, images.classes))
    return drawings


def draw_image(
    pixels: np.ndarray, detections: Detections, classes: Sequence[str], *, scores: bool = True
) -> str:
    """Draw boxes on an image, RGB uint8 [H, W, 3], and return it as a data: URL."""
    image = Image.fromarray(pixels)
    image.thumbnail((SOURCE_SIDE, SOURCE_SIDE))
    ratio = torch.tensor([image.width / pixels.shape[1], image.height / pixels.shape[0]] * 2)
    scaled = Detections(detections.boxes * ratio, detections.scores, detections.labels)
    drawing = draw_detections(np.asarray(image), scaled, classes, scores=scores)
    drawing.thumbnail((PAGE_SIDE, PAGE_SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    drawing.save(data, "JPEG", quality=ALBUM_QUALITY, subsampling=0)
    return INLINE[1] + base64.b64encode(data.getvalue()).decode()
