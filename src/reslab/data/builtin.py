"""Built-in data sets: digits, which come with scikit-learn, and CIFAR-10."""

from typing import TYPE_CHECKING, Literal, get_args

from reslab.data.location import Location, to_folder
from reslab.errors import unknown_name

if TYPE_CHECKING:
    from reslab.data.datasets import MemorySplits

SetName = Literal["digits", "cifar10"]


def set_named(name: str) -> SetName:
    """Return `name` if it is a built-in data set; otherwise raise ValueError."""
    for known in get_args(SetName):
        if name == known:
            return known
    raise ValueError(unknown_name("data set", name, get_args(SetName)))


def open_sets(name: SetName, folder: Location | None = None) -> "MemorySplits":
    """Open the training and test images of a built-in set.

    Raise ValueError if `folder` is given for digits, which need none, or is a URL.
    """
    if name == "cifar10":
        from reslab.data.cifar10 import load_cifar10

        return load_cifar10(to_folder(folder, "cifar10 needs") if folder else None)
    if folder is not None:
        raise ValueError(f"`data` {folder}: the digits are built in and need no folder")
    from reslab.data.digits import load_digits

    return load_digits()
