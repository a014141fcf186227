"""`reslab detect`"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.album import open_drawing_folder, without_drawn
from reslab.cli.console import print_line, printable, to_stderr, warn
from reslab.cli.files import STDIN, files_of, numbers_in, print_json_list, reason, width_of

if TYPE_CHECKING:
    from reslab.data.decode import BadImage
    from reslab.detection.predict import Detection

    Answer = list[Detection] | BadImage


SURE = 0.5  # as that of detect/detect.py, which needs torch
NOTHING = "nothing found"
OBJECTS_LISTED = 6  # objects of an image in its line


def detect(
    model: Annotated[Path, typer.Argument(help="A detector's run folder or model file.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|FOLDER...", help="Files, folders, - for standard input."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for the images with boxes drawn, and detections.json."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="The least probability that is told.")
    ] = SURE,
    refine: Annotated[
        bool, typer.Option("--refine", help="Judge the boxes found once more, and vote (App. B).")
    ] = False,
    scales: Annotated[
        str | None,
        typer.Option(help="Shorter sides to look at, as 400,600,800: slower, better (App. B)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list of objects.")] = False,
) -> int:
    """Find the objects in images: their names, how sure that is, and where they are.

    With --out the boxes are drawn, and detections.json there has them as COCO writes results. A
    file that is bad is named on standard error and the others go on; the exit status is then 1.
    """
    from reslab.data.decode import BadImage
    from reslab.detection.predict import load_detector_predictor
    from reslab.runtime.device import setup_device

    given, unlike = files_of(images)
    given = list({it.file: it for it in given}.values())  # what is named twice is looked at once
    if out:
        given = without_drawn(given, out)
    album = open_drawing_folder(out, given) if out else None
    finder = load_detector_predictor(
        model, threshold=threshold, refine=refine or None, scales=numbers_in(scales)
    )
    finder = finder.to(setup_device("fp32").torch_device)
    if unlike:
        warn(f"{unlike} other files in folders are no images by their names, left out")
    sources = (sys.stdin.buffer.read() if it.file == STDIN else it.file for it in given)
    seen = zip(given, finder.see(sources), strict=True)
    bad = 0

    def good() -> "Iterator[tuple[str, Answer]]":
        nonlocal bad
        for it, answer in seen:
            if isinstance(answer, BadImage):
                bad += 1
                warn(f"{it.file}: {reason(it.file, answer)}")
                yield it.file, answer
                continue
            if album:
                album.add(it, answer, finder.classes)
            yield it.file, answer.objects

    try:
        if as_json:
            print_json_list(good(), detections_entry)
        elif len(given) == 1:
            print_block(good())
        else:
            print_detections(good(), width_of(it.file for it in given))
    finally:  # stopped, too: what is drawn is also listed
        if album:
            album.finish()
            to_stderr(f"{album.drawn} of {len(given)} images with their boxes: {out}")
    return 1 if bad else 0


def print_block(answers: "Iterator[tuple[str, Answer]]") -> None:
    """A line for each object, with its box."""
    for file, answer in answers:
        if isinstance(answer, list):
            lines = [printable(str(it)) for it in answer] or [NOTHING]
            print_line("\n".join([printable(file), *(f"  {line}" for line in lines)]))


def print_detections(answers: "Iterator[tuple[str, Answer]]", width: int) -> None:
    """A line for each image, as it comes."""
    for file, answer in answers:
        if isinstance(answer, list):
            print_line(f"{printable(file):{width}}  {printable(image_line(answer))}")
            sys.stdout.flush()  # to a pipe too


def image_line(objects: "Sequence[Detection]") -> str:
    """What is in an image, the most probable first."""
    if not objects:
        return NOTHING
    shown = ", ".join(f"{it.name} {100 * it.score:.0f} %" for it in objects[:OBJECTS_LISTED])
    more = f" and {len(objects) - OBJECTS_LISTED} more" if len(objects) > OBJECTS_LISTED else ""
    return f"{len(objects)} object{'s' if len(objects) > 1 else ''}: {shown}{more}"


def detections_entry(file: str, answer: "Answer") -> dict[str, object]:
    """One image in JSON."""
    if not isinstance(answer, list):
        return {"file": file, "error": reason(file, answer)}
    objects = [
        {"class": it.name, "id": it.id, "score": round(it.score, 6),
         "box": [round(corner, 2) for corner in it.box]}
        for it in answer
    ]  # fmt: skip
    return {"file": file, "objects": objects}
