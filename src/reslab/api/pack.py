"""Pack a folder of images into shards, and write digit-scenes into a folder."""

from pathlib import Path

from reslab.data.boxes import digit_scenes
from reslab.data.datasets import notes_of
from reslab.data.folder import open_folder_parts
from reslab.data.location import is_table
from reslab.data.shards.draft import DRAFT
from reslab.data.shards.writer import JPEG_QUALITY, SHARD_SIZE, Packed, Packing, pack_sets
from reslab.runtime.events import Callback, counter, note, silent


def pack(
    folder: Path,
    out: Path,
    *,
    shorter_side: int | None = None,
    shard_size: int | None = None,
    quality: int | None = None,
    on_event: Callback = silent,
) -> tuple[list[Packed], Packing]:
    """Pack a folder of images, one subfolder per class, into tar shards of `shard_size` MB.

    Images are copied unchanged unless they are larger than `shorter_side`; those are reduced and
    encoded as JPEG with `quality`.
    """
    if quality and not shorter_side:
        raise ValueError("`quality` applies only to reduced images: give `shorter_side` too")
    inside = folder.parent if is_table(folder) else folder
    if out.resolve().is_relative_to(inside.resolve()):
        raise ValueError(
            f"{out} lies in {inside}, where it would become a class; name another folder"
        )
    packing = Packing(shorter_side, quality or JPEG_QUALITY, shard_size or SHARD_SIZE)
    parts = open_folder_parts(folder)
    for line in notes_of(*parts.values()):
        on_event(note(line))
    on_image = counter(sum(map(len, parts.values())), "images", on_event)
    return pack_sets(parts, out, packing, lambda bad: on_image(str(bad) if bad else None)), packing


def remains_in_words(out: Path) -> str:
    """Return what a stopped pack has left in `out`."""
    if not (out / DRAFT).exists():
        return f"nothing is left in {out}"
    return f"{out / DRAFT} could not be removed: the next pack into {out} removes it"


def write_scenes(
    out: Path, *, train: int, test: int, seed: int = 0, on_event: Callback = silent
) -> None:
    """Generate digit-scenes into a new folder in COCO layout."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists already: name a new folder")
    sets = digit_scenes.digit_scenes(train=train, test=test, seed=seed)
    digit_scenes.save_scenes(out, sets, counter(train + test, "scenes", on_event))
