"""`reslab predict` and `reslab detect`"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.api.lines import printable, to_stderr, warn
from reslab.cli.console import AsJson, Precision, Refine, Scales, parse_numbers, print_answers

if TYPE_CHECKING:
    from reslab.api.predict import Answer, InputImage
    from reslab.detection.predict import Detection
    from reslab.evaluation.predict import Prediction


TOP = 5
WIDEST_NAME = 60  # longest file name, in characters, that the column is aligned to
SURE = 0.5  # as in detection/predict.py, which imports torch
NOTHING = "nothing found"
OBJECTS_LISTED = 6  # most objects listed in an image's line
PROTOCOL_HELP = "one-crop, ten-crop or multi-scale, optionally with sizes: ten-crop:256-224."
Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE|FOLDER", help="Files, folders, or - for standard input."),
]


def predict(
    model: Annotated[Path, typer.Argument(help="A run folder or a model file.")],
    images: Images,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Classes per image; default 5, or 1 for several images."),
    ] = None,
    protocol: Annotated[str, typer.Option(help=PROTOCOL_HELP)] = "one-crop",
    precision: Precision = "fp32",
    as_json: AsJson = False,
) -> int:
    """Classify images: print the most probable classes of each.

    Images are preprocessed as specified in the model file. Bad files are reported on standard error
    and skipped; the exit status is then 1.
    """
    from reslab.api import predict

    files, left_out = predict.find_images(images)
    single = len(files) == 1
    answers = predict.predict(
        model, files,
        top=top or (TOP if single or as_json else 1), protocol=protocol, precision=precision,
    )  # fmt: skip
    if left_out:
        warn(f"{left_out} other files in folders are no images by their names, left out")
    width = name_width(files)

    def text(answer: "Answer[Prediction]") -> str:
        name = printable(answer.file)
        if single or top:
            return "\n".join([name, *(f"  {prediction}" for prediction in answer.results)])
        return f"{name:{width}}  {answer.results[0]}"

    return print_answers(answers, text, classes_entry if as_json else None)


def name_width(images: "Sequence[InputImage]") -> int:
    """Return the width of the column of file names, so that most lines are aligned."""
    return min(WIDEST_NAME, max(len(image.file) for image in images))


def classes_entry(answer: "Answer[Prediction]") -> dict[str, Any]:
    """Return the classes of an image, for JSON."""
    predictions = [
        {"class": prediction.name, "probability": prediction.probability, "id": prediction.id}
        for prediction in answer.results
    ]
    return {"predictions": predictions}


def detect(
    model: Annotated[Path, typer.Argument(help="A detector's run folder or model file.")],
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
) -> int:
    """Detect the objects in images: print their class, probability and box.

    With --out, draws the boxes and writes detections.json in COCO's results format. Bad files are
    reported on standard error and skipped; the exit status is then 1.
    """
    from reslab.api import predict

    files, left_out = predict.find_images(images)
    files = list({image.file: image for image in files}.values())  # each image once
    if out:
        files = predict.without_drawings(files, out)
    drawings = predict.open_drawing_folder(out, files) if out else None
    answers = predict.detect(
        model, files, drawings,
        threshold=threshold, refine=refine, scales=parse_numbers("--scales", scales, "400,600,800"),
    )  # fmt: skip
    if left_out:
        warn(f"{left_out} other files in folders are no images by their names, left out")
    width = name_width(files)

    def text(answer: "Answer[Detection]") -> str:
        return block(answer) if len(files) == 1 else line(answer, width)

    try:
        with closing(answers):
            return print_answers(answers, text, objects_entry if as_json else None)
    finally:  # also if interrupted, so that every drawn image is listed
        if drawings:
            drawings.finish()
            to_stderr(f"{drawings.drawn} of {len(files)} images with their boxes: {out}")


def block(answer: "Answer[Detection]") -> str:
    """Return the text for an image: one line per object, with its box."""
    lines = [printable(str(detection)) for detection in answer.results] or [NOTHING]
    return "\n".join([printable(answer.file), *(f"  {line}" for line in lines)])


def line(answer: "Answer[Detection]", width: int) -> str:
    """Return the text for an image on one line, the most probable objects first."""
    return f"{printable(answer.file):{width}}  {printable(objects_in_words(answer.results))}"


def objects_in_words(objects: "Sequence[Detection]") -> str:
    if not objects:
        return NOTHING
    listed = objects[:OBJECTS_LISTED]
    shown = ", ".join(f"{detection.name} {100 * detection.score:.0f} %" for detection in listed)
    more = f" and {len(objects) - len(listed)} more" if len(objects) > len(listed) else ""
    return f"{len(objects)} object{'s' if len(objects) > 1 else ''}: {shown}{more}"


def objects_entry(answer: "Answer[Detection]") -> dict[str, Any]:
    """Return the objects in an image, for JSON."""
    objects = [
        {"class": detection.name, "id": detection.id, "score": round(detection.score, 6),
         "box": [round(corner, 2) for corner in detection.box]}
        for detection in answer.results
    ]  # fmt: skip
    return {"objects": objects}
