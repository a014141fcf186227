"""`reslab predict` and `reslab detect`"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.console import (
    AsJson,
    Precision,
    Refine,
    Scales,
    parse_numbers,
    print_answers,
    printable,
    to_stderr,
    warn,
)

if TYPE_CHECKING:
    from reslab.api.predict import Answer, InputImage
    from reslab.detection.predict import Detection
    from reslab.evaluation.predict import Prediction


TOP = 5
WIDEST_NAME = 60  # characters of a file's name that others are aligned with
SURE = 0.5  # as in detection/predict.py, which imports torch
NOTHING = "nothing found"
OBJECTS_LISTED = 6  # objects of an image in its line
PROTOCOL_HELP = "one-crop, ten-crop or multi-scale; with numbers, as ten-crop:256-224."
Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE|FOLDER", help="Files, folders, or - for standard input."),
]


def predict(
    model: Annotated[Path, typer.Argument(help="A run folder or a model file.")],
    images: Images,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Classes per image; else 5, or 1 for each of several images."),
    ] = None,
    protocol: Annotated[str, typer.Option(help=PROTOCOL_HELP)] = "one-crop",
    precision: Precision = "fp32",
    as_json: AsJson = False,
) -> int:
    """Classify images: the most probable classes of each.

    Prepares images as the model file says. Names bad files on standard error and goes on; the exit
    status is then 1.
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
    """Choose the width of the column of names so that most are aligned."""
    return min(WIDEST_NAME, max(len(image.file) for image in images))


def classes_entry(answer: "Answer[Prediction]") -> dict[str, Any]:
    """Describe the classes of an image in JSON."""
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
        float, typer.Option(min=0, max=1, help="Lowest probability of an object reported.")
    ] = SURE,
    refine: Refine = False,
    scales: Scales = None,
    as_json: AsJson = False,
) -> int:
    """Find the objects in images: their class, probability and box.

    With --out, draws the boxes and writes detections.json as COCO writes results. Names bad files
    on standard error and goes on; the exit status is then 1.
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
    finally:  # interrupted, too: what is drawn is also listed
        if drawings:
            drawings.finish()
            to_stderr(f"{drawings.drawn} of {len(files)} images with their boxes: {out}")


def block(answer: "Answer[Detection]") -> str:
    """Describe an image in a line for each object, with its box."""
    lines = [printable(str(detection)) for detection in answer.results] or [NOTHING]
    return "\n".join([printable(answer.file), *(f"  {line}" for line in lines)])


def line(answer: "Answer[Detection]", width: int) -> str:
    """Describe an image in a line, the most probable objects first."""
    return f"{printable(answer.file):{width}}  {printable(objects_in_words(answer.results))}"


def objects_in_words(objects: "Sequence[Detection]") -> str:
    if not objects:
        return NOTHING
    listed = objects[:OBJECTS_LISTED]
    shown = ", ".join(f"{detection.name} {100 * detection.score:.0f} %" for detection in listed)
    more = f" and {len(objects) - len(listed)} more" if len(objects) > len(listed) else ""
    return f"{len(objects)} object{'s' if len(objects) > 1 else ''}: {shown}{more}"


def objects_entry(answer: "Answer[Detection]") -> dict[str, Any]:
    """Describe the objects of an image in JSON."""
    objects = [
        {"class": detection.name, "id": detection.id, "score": round(detection.score, 6),
         "box": [round(corner, 2) for corner in detection.box]}
        for detection in answer.results
    ]  # fmt: skip
    return {"objects": objects}
