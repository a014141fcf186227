"""`reslab pack` and `reslab scenes`"""

from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.console import (
    AsJson,
    handling_signals,
    print_json,
    print_line,
    printable,
    progress_display,
    warn,
)

if TYPE_CHECKING:
    from reslab.data.shards.writer import Packed, Packing


def pack(
    folder: Annotated[Path, typer.Argument(help="Images in a folder per class.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the shards.")],
    shorter_side: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Reduce larger images; 480 is the most the paper trains at."
        ),
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, metavar="MB", help="Megabytes per shard; else 500.")
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, metavar="Q", help="JPEG quality of reduced images; else 95."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Pack a folder of images into tar shards that `--data` and webdataset read.

    Copies the bytes of images as they are, except of those that --shorter-side reduces. Parts stay
    parts. Names images that cannot be decoded and leaves them out.
    """
    from reslab.api import folders

    signals: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) == 1:  # when a second one comes, what was written is being removed
            raise KeyboardInterrupt

    with handling_signals(interrupt), progress_display() as on_event:
        try:
            packed, packing = folders.pack(
                folder, out, shorter_side=shorter_side, shard_size=shard_size, quality=quality,
                on_event=on_event,
            )  # fmt: skip
        except KeyboardInterrupt:
            warn(f"stopped; nothing of it is left in {out}")
            return 128 + signals[0]
    if as_json:
        print_json({"out": str(out), "parts": [asdict(part) for part in packed]})
        return 0
    for part in packed:
        print_line(f"{printable(part.name)}: {packed_summary(part, packing)}")
    return 0


def packed_summary(part: "Packed", packing: "Packing") -> str:
    text = (
        f"{part.pictures:,} images of {part.classes:,} classes in {part.shards:,} "
        f"{'shard' if part.shards == 1 else 'shards'}, {part.bytes / 1e6:,.1f} MB"
    )
    if packing.shorter_side:
        text += f"; {part.reduced:,} reduced to a shorter side of {packing.shorter_side}"
    return f"{text}; {part.left_out:,} left out" if part.left_out else text


def scenes(
    out: Annotated[Path, typer.Argument(help="A new folder for the images and their boxes.")],
    train: Annotated[int, typer.Option(min=1, help="Scenes to train on.")] = 4000,
    test: Annotated[int, typer.Option(min=1, help="Scenes to test on.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other scenes.")] = 0,
) -> None:
    """Write digit-scenes, the detection set that comes with reslab, in COCO's layout.

    Digits of several sizes on cluttered backgrounds, with their boxes in annotations/: to look at,
    or for other programs. The recipes `digit-scenes-*` draw the scenes themselves and need no
    folder.
    """
    from reslab.api import folders

    with progress_display() as on_event:
        folders.write_scenes(out, train=train, test=test, seed=seed, on_event=on_event)
    print_line(
        f"{train:,} scenes to train on and {test:,} to test on, boxes in {out / 'annotations'}"
    )
