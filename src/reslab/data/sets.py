"""The one place where the name of a data set becomes its pictures."""

from typing import Literal, get_args

from reslab.data.cifar10 import load_cifar10
from reslab.data.digits import load_digits
from reslab.data.images import Sets
from reslab.data.place import Place, folder_of
from reslab.words import unknown

SetName = Literal["digits", "cifar10"]


def set_named(name: str) -> SetName:
    """`name` if there is a set of that name; ValueError with the nearest otherwise."""
    for known in get_args(SetName):
        if name == known:
            return known
    raise ValueError(unknown("set", name, get_args(SetName)))


def open_sets(name: SetName, folder: Place | None = None) -> Sets:
    """The training and test pictures of a named set; digits come by themselves."""
    if name == "cifar10":
        return load_cifar10(folder_of(folder, "cifar10 needs") if folder else None)
    if folder is not None:
        raise ValueError(f"--data {folder}: digits come with reslab and need no folder")
    return load_digits()
