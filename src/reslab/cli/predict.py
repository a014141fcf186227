"""`reslab predict`"""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.chosen import computing_in
from reslab.cli.console import print_line, warn
from reslab.cli.files import STDIN, files_of, print_json_list, reason, width_of

if TYPE_CHECKING:
    from reslab.data.decode import BadImage
    from reslab.evaluation.predict import Prediction

    Answer = list[Prediction] | BadImage


TOP = 5


def predict(
    model: Annotated[Path, typer.Argument(help="A run folder or a model file.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|FOLDER...", help="Files, folders, - for standard input."),
    ],
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Classes an image: 5, or 1 for each of several images."),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="one-crop, ten-crop, multi-scale; with numbers, ten-crop:256-224.")
    ] = "one-crop",
    precision: Annotated[str, typer.Option(help="fp32, or bf16: faster.")] = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list of predictions.")] = False,
) -> int:
    """Name images: the most probable classes of each.

    The model file says how an image is prepared. A file that is bad is named on standard error
    and the others go on; the exit status is then 1.
    """
    from reslab.data.decode import BadImage
    from reslab.evaluation.predict import Predictor
    from reslab.models.model_file import load_model
    from reslab.runtime.device import setup_device

    given, unlike = files_of(images)
    files = [it.file for it in given]
    chosen = computing_in(precision, load_model(model))
    predictor = Predictor(chosen.to(setup_device("fp32").torch_device))
    if unlike:
        warn(f"{unlike} other files in folders are no images by their names, left out")
    alone = len(files) == 1
    count = top or (TOP if alone or as_json else 1)
    sources = (sys.stdin.buffer.read() if file == STDIN else file for file in files)
    answers = zip(files, predictor.each(sources, top=count, protocol=protocol), strict=True)
    bad = 0

    def good() -> "Iterator[tuple[str, Answer]]":
        nonlocal bad
        for file, answer in answers:
            if isinstance(answer, BadImage):
                bad += 1
                warn(f"{file}: {reason(file, answer)}")
            yield file, answer

    if as_json:
        print_json_list(good(), predictions_entry)
    elif alone or top:
        print_blocks(good())
    else:
        print_predictions(good(), width=width_of(files))
    return 1 if bad else 0


def print_blocks(answers: "Iterator[tuple[str, Answer]]") -> None:
    """A block of several classes for each image."""
    for file, answer in answers:
        if isinstance(answer, list):
            print_line("\n".join([file, *(f"  {prediction}" for prediction in answer)]))
            sys.stdout.flush()


def print_predictions(answers: "Iterator[tuple[str, Answer]]", width: int) -> None:
    """A line for each image, as it comes."""
    for file, answer in answers:
        if isinstance(answer, list):
            print_line(f"{file:{width}}  {answer[0]}")
            sys.stdout.flush()  # to a pipe too


def predictions_entry(file: str, answer: "Answer") -> dict[str, object]:
    """One image in JSON."""
    if isinstance(answer, list):
        names = [asdict(prediction) for prediction in answer]
        renamed = [{"class": it.pop("name"), **it} for it in names]
        return {"file": file, "predictions": renamed}
    return {"file": file, "error": reason(file, answer)}
