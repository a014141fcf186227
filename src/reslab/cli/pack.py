"""`reslab pack`"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.console import counting, print_json, print_line, printable, warn

if TYPE_CHECKING:
    from reslab.data.shards.writer import Packed, Packing


def pack(
    folder: Annotated[Path, typer.Argument(help="Images, a class a subfolder.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the shards.")],
    shorter_side: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Reduce larger images; 480 is the most the paper trains at."
        ),
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, metavar="MB", help="Megabytes of a shard; 500.")
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, metavar="Q", help="JPEG quality of reduced images; 95."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> int:
    """Pack a folder of images into tar shards that `--data` and webdataset read.

    Bytes are copied as they are, except of images that --shorter-side reduces. Parts stay parts.
    Images that do not decode are named and left out.
    """
    from reslab.data.folder import open_folder_parts
    from reslab.data.shards.writer import JPEG_QUALITY, SHARD_SIZE, Packing
    from reslab.data.shards.writer import pack_sets as pack_sets

    if quality and not shorter_side:
        raise ValueError("--quality is that of reduced images: give --shorter-side too")
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{out} lies in {folder}, where it would become a class; name another")
    packing = Packing(shorter_side, quality or JPEG_QUALITY, shard_size or SHARD_SIZE)
    with stopped_by_signals() as seen:
        try:
            parts = open_folder_parts(folder)
            with counting(sum(map(len, parts.values())), "images") as on_event:
                packed = pack_sets(
                    parts, out, packing, lambda bad: on_event(f"{bad}; left out" if bad else None)
                )
        except KeyboardInterrupt:
            warn(f"stopped; nothing of it is left in {out}")
            return 128 + seen[0]
    if as_json:
        print_json({"out": str(out), "parts": [asdict(part) for part in packed]})
        return 0
    for part in packed:
        print_line(f"{printable(part.name)}: {packed_summary(part, packing)}")
    return 0


def packed_summary(part: "Packed", packing: "Packing") -> str:
    """What became of a set, in a line."""
    line = (
        f"{part.pictures:,} images of {part.classes:,} classes in {part.shards:,} "
        f"{'shard' if part.shards == 1 else 'shards'}, {part.bytes / 1e6:,.1f} MB"
    )
    if packing.shorter_side:
        line += f"; {part.reduced:,} reduced to a shorter side of {packing.shorter_side}"
    return f"{line}; {part.left_out:,} left out" if part.left_out else line


@contextmanager
def stopped_by_signals() -> Iterator[list[int]]:
    """Inside, SIGTERM and SIGHUP stop the work as Ctrl-C does; which one came is in the list.

    Only the first does: what was written is being removed when a second one comes.
    """
    seen: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 1:
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def scenes(
    out: Annotated[Path, typer.Argument(help="A new folder for the images and their boxes.")],
    train: Annotated[int, typer.Option(min=1, help="Scenes to train on.")] = 4000,
    test: Annotated[int, typer.Option(min=1, help="Scenes to test on.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds are other scenes.")] = 0,
) -> None:
    """Write digit-scenes, the set that comes with reslab, as a folder in COCO's layout.

    Digits of several sizes on cluttered backgrounds, their boxes in annotations/: to look at, or
    for other programs. Detectors need no folder of them: `digit-scenes-*` draws them itself.
    """
    from reslab.data.boxes.digit_scenes import digit_scenes, write_scenes

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: name a new folder")
    sets = digit_scenes(train=train, test=test, seed=seed)
    with counting(train + test, "scenes") as on_progress:
        write_scenes(out, sets, on_progress)
    print_line(
        f"{train:,} scenes to train on and {test:,} to test on, boxes in {out / 'annotations'}"
    )
