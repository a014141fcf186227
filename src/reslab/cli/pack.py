"""`reslab pack` and `reslab scenes`"""

from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.api.display import progress_display
from reslab.api.lines import warn
from reslab.api.signals import handling_signals
from reslab.cli.console import AsJson, print_json, print_line
from reslab.runtime.text import printable

if TYPE_CHECKING:
    from reslab.data.shards.writer import Packed, Packing


def pack(
    folder: Annotated[Path, typer.Argument(help="Images in one subfolder per class.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the shards.")],
    shorter_side: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Reduce larger images; the paper trains at 480 at most."
        ),
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, metavar="MB", help="Megabytes per shard; 500 by default.")
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            min=1, max=100, metavar="Q", help="JPEG quality of reduced images; 95 by default."
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Pack images into tar shards for `--data` and webdataset.

    Copies image files unchanged, except the ones that --shorter-side reduces. Splits are kept.
    Reports images that cannot be decoded and leaves them out.
    """
    from reslab.api import pack as packer

    signals: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) == 1:  # on a second signal, the output is already being removed
            raise KeyboardInterrupt

    with handling_signals(interrupt), progress_display() as on_event:
        try:
            packed, packing = packer.pack(
                folder, out, shorter_side=shorter_side, shard_size=shard_size, quality=quality,
                on_event=on_event,
            )  # fmt: skip
        except KeyboardInterrupt:
            warn(f"stopped; {packer.remains_in_words(out)}")
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
    train: Annotated[int, typer.Option(min=1, help="Number of training scenes.")] = 4000,
    test: Annotated[int, typer.Option(min=1, help="Number of test scenes.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random scenes.")] = 0,
) -> None:
    """Write digit-scenes, a small detection set, in COCO layout.

    The scenes show digits of several sizes on cluttered backgrounds, with boxes in annotations/.
    They are for inspection or other programs: the recipes `digit-scenes-*` generate the scenes
    themselves and need no folder.
    """
    from reslab.api import pack as packer

    with progress_display() as on_event:
        packer.write_scenes(out, train=train, test=test, seed=seed, on_event=on_event)
    print_line(
        f"{train:,} scenes to train on and {test:,} to test on, boxes in {out / 'annotations'}"
    )
