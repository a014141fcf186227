"""`reslab predict` and `reslab detect`"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.api.lines import to_stderr, warn
from reslab.cli.console import (
    AsCsv,
    AsJson,
    Backend,
    Precision,
    Refine,
    Scales,
    csv_table,
    json_list,
    lines_of,
    must_choose_one_form,
    parse_numbers,
    print_results,
)
from reslab.runtime.text import printable

if TYPE_CHECKING:
    from reslab.api.inputs import ImageResult, InputImage
    from reslab.detection.predict import Detection
    from reslab.evaluation.predict import Prediction


TOP = 5
WIDEST_NAME = 60  # longest file name, in characters, that the column is aligned to
SURE = 0.5  # as in detection/predict.py, which imports torch
NOTHING = "nothing found"
OBJECT_COLUMNS = ("class", "id", "score", "x0", "y0", "x1", "y1")  # corners in pixels
OBJECTS_LISTED = 6  # most objects listed in an image's line
PROTOCOL_HELP = "one-crop, ten-crop or multi-scale, optionally with sizes: ten-crop:256-224."
Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE|FOLDER", help="Files, folders, or - for standard input."),
]


def predict(
    model: Annotated[Path, typer.Argument(help="A run folder, model file, exported file or name.")],
    images: Images,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Classes per image; default 5, or 1 for several images."),
    ] = None,
    protocol: Annotated[str, typer.Option(help=PROTOCOL_HELP)] = "one-crop",
    precision: Precision = "fp32",
    backend: Backend = "auto",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> int:
    """Classify images: print the most probable classes of each.

    Images are preprocessed as specified in the model file. Bad files are reported on standard error
    and skipped; the exit status is then 1.
    """
    from reslab.api.inputs import find_images
    from reslab.api.predict import predict_each
    from reslab.data.left_out import count_suffixes

    must_choose_one_form(as_json, as_csv)
    files, left_out = find_images(images)
    single = len(files) == 1
    shown = top or (TOP if as_json or (single and not as_csv) else 1)
    results = predict_each(
        model, files, top=shown, protocol=protocol, precision=precision, backend=backend
    )
    if left_out:
        warn(count_suffixes(left_out, " in folders"))
    width = name_width(files)

    def text(result: "ImageResult[Prediction]") -> str:
        name = printable(result.file)
        if single or top:
            return "\n".join([name, *(f"  {prediction}" for prediction in result.results)])
        return f"{name:{width}}  {result.results[0]}"

    def render(results: "Iterable[ImageResult[Prediction]]") -> Iterator[str]:
        if as_json:
            return json_list(results, classes_entry)
        if as_csv:
            return csv_table(results, class_columns(shown), classes_row)
        return lines_of(results, text)

    return print_results(results, render)


def name_width(images: "Sequence[InputImage]") -> int:
    """Return the width of the column of file names, so that most lines are aligned."""
    return min(WIDEST_NAME, max(len(image.file) for image in images))


def classes_entry(result: "ImageResult[Prediction]") -> dict[str, Any]:
    """Return the classes of an image, for JSON."""
    predictions = [
        {"class": prediction.name, "probability": prediction.probability, "id": prediction.id}
        for prediction in result.results
    ]
    return {"predictions": predictions}


def class_columns(top: int) -> list[str]:
    """Return the columns for the `top` most probable classes: class, ..., class_2, ..."""
    suffixes = ["", *(f"_{rank}" for rank in range(2, top + 1))]
    return [f"{name}{suffix}" for suffix in suffixes for name in ("class", "id", "probability")]


def classes_row(result: "ImageResult[Prediction]") -> list[list[object]]:
    """Return the row of an image, with its classes side by side."""
    cells: list[object] = []
    for prediction in result.results:
        cells += [prediction.name, prediction.id, f"{prediction.probability:.6f}"]
    return [cells]


def detect(
    model: Annotated[
        Path, typer.Argument(help="A detector's run folder, model file or exported file.")
    ],
    images: Images,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the images with boxes drawn, and detections.json."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Lowest probability reported.")
    ] = SURE,
    refine: Refine = False,
    scales: Scales = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> int:
    """Detect objects in images: print class, probability and box.

    With --out, draws the boxes and writes detections.json in COCO's results format. Bad files are
    reported on standard error and skipped; the exit status is then 1.
    """
    from reslab.api.drawings import open_drawing_folder
    from reslab.api.predict import detect_each, images_to_search, open_predictor
    from reslab.data.left_out import count_suffixes

    must_choose_one_form(as_json, as_csv)
    files, left_out = images_to_search(images, out)
    sizes = parse_numbers("--scales", scales, "400,600,800")
    predictor = open_predictor(model, threshold, refine or None, sizes)
    drawings = open_drawing_folder(out, files) if out else None
    results = detect_each(predictor, files, drawings)
    if left_out:
        warn(count_suffixes(left_out, " in folders"))
    width = name_width(files)

    def text(result: "ImageResult[Detection]") -> str:
        return block(result) if len(files) == 1 else line(result, width)

    def render(results: "Iterable[ImageResult[Detection]]") -> Iterator[str]:
        if as_json:
            return json_list(results, objects_entry)
        if as_csv:
            return csv_table(results, OBJECT_COLUMNS, objects_rows)
        return lines_of(results, text)

    try:
        with closing(results):
            return print_results(results, render, is_only_output=drawings is None)
    finally:  # also if interrupted, so that every drawn image is listed
        if drawings:
            drawings.finish()
            to_stderr(f"{drawings.drawn} of {len(files)} images with their boxes: {out}")


def block(result: "ImageResult[Detection]") -> str:
    """Return the text for an image: one line per object, with its box."""
    lines = [str(detection) for detection in result.results] or [NOTHING]
    return "\n".join([printable(result.file), *(f"  {line}" for line in lines)])


def line(result: "ImageResult[Detection]", width: int) -> str:
    """Return the text for an image on one line, the most probable objects first."""
    return f"{printable(result.file):{width}}  {printable(objects_in_words(result.results))}"


def objects_in_words(objects: "Sequence[Detection]") -> str:
    if not objects:
        return NOTHING
    listed = objects[:OBJECTS_LISTED]
    shown = ", ".join(f"{detection.name} {100 * detection.score:.0f} %" for detection in listed)
    more = f" and {len(objects) - len(listed)} more" if len(objects) > len(listed) else ""
    return f"{len(objects)} object{'s' if len(objects) > 1 else ''}: {shown}{more}"


def objects_entry(result: "ImageResult[Detection]") -> dict[str, Any]:
    """Return the objects in an image, for JSON."""
    objects = [
        {"class": detection.name, "id": detection.id, "score": round(detection.score, 6),
         "box": [round(corner, 2) for corner in detection.box]}
        for detection in result.results
    ]  # fmt: skip
    return {"objects": objects}


def objects_rows(result: "ImageResult[Detection]") -> list[list[object]]:
    """Return a row for each object in an image."""
    return [
        [found.name, found.id, f"{found.score:.6f}", *(f"{corner:.2f}" for corner in found.box)]
        for found in result.results
    ]
