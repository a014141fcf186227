"""Open images in shards: of `reslab pack`, by their index, or of another program."""

from pathlib import Path

from reslab.data.class_list import class_list
from reslab.data.datasets import EncodedImages
from reslab.data.location import Location, Url
from reslab.data.shards.draft import is_unfinished
from reslab.data.shards.foreign import is_foreign
from reslab.data.shards.foreign_set import open_foreign
from reslab.data.shards.reader import is_indexed, open_part, open_remote_part


def open_packed(
    part: str, root: Location, place: Location, names: Path | None = None
) -> EncodedImages | None:
    """Open a split in shards; return None for a folder of class folders."""
    if isinstance(root, Url):
        return open_remote_part(root)
    for folder in (root, root.parent):
        if is_unfinished(folder):
            raise ValueError(
                f"{folder} has an unfinished pack: wait for `reslab pack`, or run it again if it "
                "was stopped"
            )
    if is_indexed(root):
        return open_part(root)
    if is_foreign(root):
        assert isinstance(place, Path), "a local split is in a local folder"
        return open_foreign(root, part, place, names or class_list(root, place))
    return None
