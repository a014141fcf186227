"""The classes of a set among the outputs of a model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches

import torch

from reslab.data.images import ImageSet
from reslab.data.pictures import PictureSet
from reslab.evaluate.scoring import AnySet


def matched(
    pictures: AnySet, classes: tuple[str, ...], ids: tuple[str, ...] = ()
) -> tuple[AnySet, list[str]]:
    """The set with its labels as a model's outputs, and a line for each class that is none.

    A class is found by its id (ImageNet: wnid) or its name, as it is written if that is an
    output's (folders of letters have an a and an A), else whatever their case. The set may hold
    any of the outputs; all of them compete. Pictures of classes that are not found are left out.
    ValueError if none is.
    """
    own_ids = pictures.ids if isinstance(pictures, PictureSet) else ()
    if pictures.classes == classes and (not ids or not own_ids or own_ids == ids):
        return pictures, []
    exactly, outputs = (outputs_by_name(kind, classes, ids) for kind in (str, plain))
    found, lost = [], []
    for at, name in enumerate(pictures.classes):
        words = dict.fromkeys([*own_ids[at : at + 1], name])
        places = [exactly.get(word, outputs.get(plain(word), -1)) for word in words]
        output = next((at for at in places if at not in (None, -1)), None)
        found.append(-1 if output is None else output)
        if output is None:
            lost.append(described(list(words), None in places, outputs))
    if max(found, default=-1) < 0:
        raise ValueError(
            f"no class of {pictures.name} is an output of the model: {lost[0]}"
            if lost
            else f"{pictures.name} has no classes"
        )
    labels = torch.tensor(found, device=pictures.labels.device)[pictures.labels]
    kept = (labels >= 0).nonzero()[:, 0]
    rest = pictures if len(kept) == len(labels) else pictures.take(pictures.name, kept)
    if isinstance(rest, ImageSet):
        return replace(rest, labels=labels[kept], classes=classes), lost
    return replace(rest, labels=labels[kept], classes=classes, ids=ids or classes), lost


def plain(name: str) -> str:
    """A name as it is compared: neither case nor the kind of gap counts."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def outputs_by_name(
    kind: Callable[[str], str], classes: Sequence[str], ids: Sequence[str]
) -> dict[str, int | None]:
    """Where each name leads; None for one that several outputs share (ImageNet has two cranes)."""
    outputs: dict[str, int | None] = {}
    for at, name in enumerate(map(kind, classes)):
        outputs[name] = None if name in outputs else at
    return outputs | {kind(name): at for at, name in enumerate(ids)}


def described(words: Sequence[str], shared: bool, outputs: dict[str, int | None]) -> str:
    """What is said of a class that is not found."""
    name = " ".join(repr(word) for word in words)
    if shared:
        return f"class {name}: several outputs have this name; call the folder by its id"
    near = get_close_matches(plain(words[-1]), list(outputs), n=1, cutoff=0.5)
    return f"class {name} is no output of the model" + (f"; nearest: {near[0]!r}" if near else "")
