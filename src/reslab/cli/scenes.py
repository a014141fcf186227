"""`reslab scenes`"""

from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.console import counting, say


def scenes(
    out: Annotated[Path, typer.Argument(help="A new folder for the pictures and their boxes.")],
    train: Annotated[int, typer.Option(min=1, help="Scenes to train on.")] = 4000,
    test: Annotated[int, typer.Option(min=1, help="Scenes to test on.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds are other scenes.")] = 0,
) -> None:
    """Write digit-scenes, the set that comes with reslab, as a folder in COCO's layout.

    Digits of several sizes on cluttered backgrounds, their boxes in annotations/: to look at, or
    for other programs. Detectors need no folder of them: `digit-scenes-*` draws them itself.
    """
    from reslab.data.scenes import digit_scenes, write_scenes

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: name a new folder")
    sets = digit_scenes(train=train, test=test, seed=seed)
    with counting(train + test, "scenes") as hear:
        write_scenes(out, sets, hear)
    say(f"{train:,} scenes to train on and {test:,} to test on, boxes in {out / 'annotations'}")
