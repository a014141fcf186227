"""`reslab detect`"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.album import open_album, without_drawn
from reslab.cli.console import complain, printable, say, to_stderr
from reslab.cli.files import STDIN, files_of, numbers_in, print_json, reason, width_of

if TYPE_CHECKING:
    from reslab.data.decode import BadPicture
    from reslab.detection.predict import Found

    Answer = list[Found] | BadPicture


SURE = 0.5  # as that of detect/detect.py, which needs torch
NOTHING = "nothing found"
LISTED = 6  # objects of a picture in its line


def detect(
    model: Annotated[Path, typer.Argument(help="A detector's run folder or model file.")],
    pictures: Annotated[
        list[str],
        typer.Argument(metavar="PICTURE|FOLDER...", help="Files, folders, - for standard input."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for the pictures with boxes drawn, and detections.json."),
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
    """Find the objects in pictures: their names, how sure that is, and where they are.

    With --out the boxes are drawn, and detections.json there has them as COCO writes results. A
    file that is bad is named on standard error and the others go on; the exit status is then 1.
    """
    from reslab.data.decode import BadPicture
    from reslab.detection.predict import load
    from reslab.runtime.device import open_world

    given, unlike = files_of(pictures)
    given = list({it.file: it for it in given}.values())  # what is named twice is looked at once
    if out:
        given = without_drawn(given, out)
    album = open_album(out, given) if out else None
    finder = load(model, threshold=threshold, refine=refine or None, scales=numbers_in(scales))
    finder = finder.to(open_world("fp32").device)
    if unlike:
        complain(f"{unlike} other files in folders are no pictures by their names, left out")
    sources = (sys.stdin.buffer.read() if it.file == STDIN else it.file for it in given)
    seen = zip(given, finder.see(sources), strict=True)
    bad = 0

    def good() -> "Iterator[tuple[str, Answer]]":
        nonlocal bad
        for it, answer in seen:
            if isinstance(answer, BadPicture):
                bad += 1
                complain(f"{it.file}: {reason(it.file, answer)}")
                yield it.file, answer
                continue
            if album:
                album.add(it, answer, finder.classes)
            yield it.file, answer.objects

    try:
        if as_json:
            print_json(good(), entry)
        elif len(given) == 1:
            print_block(good())
        else:
            print_lines(good(), width_of(it.file for it in given))
    finally:  # stopped, too: what is drawn is also listed
        if album:
            album.finish()
            to_stderr(f"{album.drawn} of {len(given)} pictures with their boxes: {out}")
    return 1 if bad else 0


def print_block(answers: "Iterator[tuple[str, Answer]]") -> None:
    """A line for each object, with its box."""
    for file, answer in answers:
        if isinstance(answer, list):
            lines = [printable(str(it)) for it in answer] or [NOTHING]
            say("\n".join([printable(file), *(f"  {line}" for line in lines)]))


def print_lines(answers: "Iterator[tuple[str, Answer]]", width: int) -> None:
    """A line for each picture, as it comes."""
    for file, answer in answers:
        if isinstance(answer, list):
            say(f"{printable(file):{width}}  {printable(line_of(answer))}")
            sys.stdout.flush()  # to a pipe too


def line_of(objects: "Sequence[Found]") -> str:
    """What is in a picture, the most probable first."""
    if not objects:
        return NOTHING
    shown = ", ".join(f"{it.name} {100 * it.score:.0f} %" for it in objects[:LISTED])
    more = f" and {len(objects) - LISTED} more" if len(objects) > LISTED else ""
    return f"{len(objects)} object{'s' if len(objects) > 1 else ''}: {shown}{more}"


def entry(file: str, answer: "Answer") -> dict[str, object]:
    """One picture in JSON."""
    if not isinstance(answer, list):
        return {"file": file, "error": reason(file, answer)}
    objects = [
        {"class": it.name, "id": it.id, "score": round(it.score, 6),
         "box": [round(corner, 2) for corner in it.box]}
        for it in answer
    ]  # fmt: skip
    return {"file": file, "objects": objects}
