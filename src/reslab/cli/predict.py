"""`reslab predict`"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.console import AsJson, Precision, print_answers, printable, warn

if TYPE_CHECKING:
    from reslab.api.predict import Answer, InputImage
    from reslab.evaluation.predict import Prediction


TOP = 5
WIDEST_NAME = 60  # characters of a file's name that others are aligned with
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

    return print_answers(answers, text, entry if as_json else None)


def name_width(images: "Sequence[InputImage]") -> int:
    """Choose the width of the column of names so that most are aligned."""
    return min(WIDEST_NAME, max(len(image.file) for image in images))


def entry(answer: "Answer[Prediction]") -> dict[str, Any]:
    """Describe an image in JSON."""
    predictions = [
        {"class": prediction.name, "probability": prediction.probability, "id": prediction.id}
        for prediction in answer.results
    ]
    return {"predictions": predictions}
