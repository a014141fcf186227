"""Build the network that a run starts from: from the seed, or from trained weights."""

from collections.abc import Sequence

import torch

from reslab.data.class_names import ClassIndex
from reslab.data.datasets import EncodedImages, ImageSet
from reslab.data.sampler import Stream, make_generator
from reslab.models.model_file import Model
from reslab.models.resnet import ResNet, build_resnet
from reslab.runtime.events import Log
from reslab.training.recipe import Recipe


def initial_net(
    recipe: Recipe,
    seed: int,
    weights: Model | None,
    train: ImageSet,
    log: Log = lambda text: None,
) -> ResNet:
    """Initialise the network from the seed, or load the weights.

    If the weights have the classes of the images, in any order, their classifier is kept; otherwise
    it starts at zero, to disturb the trained weights least. `log` receives a line about it, unless
    the classes are equal.
    """
    net = build_resnet(recipe.model, make_generator(seed, Stream.INITIALISATION))
    net.recompute = recipe.recompute == "blocks"
    if weights is None:
        return net
    state = weights.net.state_dict()
    classifier = {f"fc.{name}": tensor for name, tensor in net.fc.state_dict().items()}
    if (weights.classes, weights.ids) != (train.classes, ids_of(train)):
        rows = rows_for(train, weights)
        if rows is None:
            state |= {name: torch.zeros_like(tensor) for name, tensor in classifier.items()}
            log("the classifier starts at zero: the weights have other classes than the images")
        else:
            state |= {name: state[name][rows] for name in classifier}
            log(f"the trained classifier is kept: {match_in_words(rows)}")
    net.load_state_dict(state)
    return net


def rows_for(train: ImageSet, weights: Model) -> list[int] | None:
    """Return the output of the weights for each class of the images.

    Return None unless outputs and classes match one to one. Outputs that are only numbered match no
    folder.
    """
    ids = ids_of(train)
    if ids and not weights.has_names:
        return None
    words = [(id_, name) for id_, name in zip(ids or train.classes, train.classes, strict=True)]
    return matching_rows(ClassIndex(weights.classes, weights.ids), words)


def ids_of(images: ImageSet) -> tuple[str, ...]:
    """Return the ids of a set's classes; a set in memory has none."""
    return images.ids if isinstance(images, EncodedImages) else ()


def matching_rows(outputs: ClassIndex, words: Sequence[Sequence[str]]) -> list[int] | None:
    """Return the output for each class, given by its id and name; None unless each has its own."""
    rows = outputs.match(words)
    return rows if len(rows) == len(outputs) and min(rows) >= 0 else None


def match_in_words(rows: Sequence[int]) -> str:
    """Return a clause on trained classes that match those of the images, in the order `rows`."""
    order = "" if list(rows) == sorted(rows) else ", and its outputs are reordered"
    return f"its classes match those of the images by name{order}"
