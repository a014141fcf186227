"""Find the classifier among a file's tensors, and decide what else in the file is left out."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from reslab.models.convert.layouts import Layout
from reslab.models.convert.wrapping import Weights, prefixes

# a classifier with one of these names is preferred to other linear layers
USUAL = ("fc", "head.fc", "head", "classifier.1", "classifier", "fc.1", "last_linear", "linear")
# the network that MoCo trains without labels: its last layer is a projection
UNLABELLED = re.compile(r"(.*[._])?(encoder_q|base_encoder)\.")
LINEAR = ((".weight", ".bias"), ("/0", "/1"))  # of a linear layer: in torch, in Caffe
# modules after the trunk
HEAD = re.compile(r"(fc|linear|mlp)\d*|\w*(head|classifier|last_linear|logits)\w*", re.I)
# modules that training without labels puts after the trunk
PROJECTION = re.compile(r"\w*(proj|prototype|predict)\w*", re.I)
COUNTER = re.compile(r"(.+\.)?(total_ops|total_params|num_batches_tracked)")  # in any module
LOSS = re.compile(r"(.*[._])?(criterion|loss|losses|metrics?|acc|accuracy)([._].*)?", re.I)

Tensors = Mapping[str, Tensor]
Linear = tuple[Tensor, Tensor]  # weight [outputs, features] and bias [outputs]


@dataclass(frozen=True)
class Head:
    """The classifier in a file, or why the file has none that can be used."""

    name: str = ""  # of the layer, in full
    layer: Linear | None = None
    problem: str = ""
    left_out: tuple[str, ...] = ()  # tensors in the network's module that do not belong to it
    foreign: Tensors = field(default_factory=dict)  # they may change what the network computes


def find_head(weights: Weights, layout: Layout) -> Head:
    """Find the classifier: a linear layer on the trunk's features, whatever its name.

    It is in the module of the trunk, or else in the nearest module around it that has one.
    """
    trunk = {name: t for name, t in weights.tensors.items() if re.match(layout.trunk, name)}
    features = max((len(t) for t in trunk.values() if t.ndim == 4), default=0)
    inner = {name: t for name, t in weights.tensors.items() if name not in trunk}
    outer = {f"{weights.prefix}{name}": t for name, t in inner.items()} | without_branches(weights)
    if UNLABELLED.fullmatch(weights.prefix):
        return no_head(inner, "it was trained without labels and has no classifier", *inner)
    for module in modules_around(weights.prefix):
        beside = {n.removeprefix(module): t for n, t in outer.items() if n.startswith(module)}
        if candidates := linear_layers(beside, features):
            head = choose_head(candidates, beside)
            name = f"{module}{head.name}" if head.name else ""
            return replace(head, name=name, left_out=tuple(module + n for n in head.left_out))
    return without_head(inner, features)


def without_branches(weights: Weights) -> dict[str, Tensor]:
    """Return the tensors outside the network, apart from those of other networks' modules."""
    others = prefixes(weights.beside)
    return {
        name: tensor
        for name, tensor in weights.beside.items()
        if not any(name.startswith(branch_of(other, weights.prefix)) for other in others)
    }


def branch_of(other: str, prefix: str) -> str:
    """Return the outermost module that contains the network `other` but not the one at `prefix`."""
    parts = other.split(".")
    starts = (".".join(parts[:count]) + "." for count in range(1, len(parts)))
    return next((start for start in starts if not prefix.startswith(start)), other)


def modules_around(prefix: str) -> Iterator[str]:
    """Yield the prefixes of the trunk's module and of all modules around it, inner ones first."""
    while prefix:
        yield prefix
        outer = prefix.rstrip(".").rpartition(".")[0]
        prefix = f"{outer}." if outer else ""
    yield ""


def linear_layers(tensors: Tensors, features: int) -> dict[str, Linear]:
    """Return the weight and bias of each linear layer on so many features, by name.

    A 1x1 convolution on pooled features is one too. Projections are left out, and so are layers
    without a bias unless they have a classifier's name: they may compare directions.
    """
    layers = {}
    for weight, bias in LINEAR:
        for name, tensor in tensors.items():
            layer = name.removesuffix(weight)
            flat = tensor.ndim == 2 or (tensor.ndim == 4 and tensor.shape[2:] == (1, 1))
            if layer == name or not flat or tensor.shape[1] != features:
                continue
            added = tensors.get(f"{layer}{bias}")
            if not PROJECTION.match(layer) and (added is not None or layer in USUAL):
                added = tensor.new_zeros(len(tensor)) if added is None else added
                layers[layer] = (tensor.flatten(1), added)
    return layers


def choose_head(candidates: Mapping[str, Linear], beside: Tensors) -> Head:
    """Return the classifier among linear layers, or why none of them can be used."""
    usual = [name for name in candidates if name in USUAL]
    chosen = list(candidates) if len(candidates) == 1 else usual
    if len(chosen) != 1:
        return no_head(
            beside, f"{' and '.join(candidates)} may each be the classifier", *candidates
        )
    name = chosen[0]
    layer = candidates[name]
    outputs = len(layer[0])
    rest = {n: t for n, t in beside.items() if not re.fullmatch(rf"{re.escape(name)}[./]\w+", n)}
    if more := further_layers(name, outputs, rest):
        return no_head(beside, f"its classifier has several layers ({name}, {more}, ...)", name)
    if outputs == 1:
        return no_head(beside, f"{name} has one output, but a classifier has one per class", name)
    foreign = foreign_layers(rest, ())
    return Head(name, layer, "", tuple(n for n in rest if n not in foreign), foreign)


def further_layers(name: str, outputs: int, rest: Tensors) -> str:
    """Return a layer that precedes or follows the linear layer `name`, or "" if there is none."""
    module = name.rpartition(".")[0]
    for other, tensor in rest.items():
        together = bool(module) and other.startswith(f"{module}.")
        follows = tensor.ndim == 2 and tensor.shape[1] == outputs
        if (together or follows) and not is_beside_the_network(other):
            return other.rpartition(".")[0]
    return ""


def no_head(beside: Tensors, problem: str, *heads: str) -> Head:
    """Return that there is no classifier, because of `problem`; the layers `heads` are left out."""
    foreign = foreign_layers(beside, heads)
    left_out = tuple(name for name in beside if name not in foreign)
    return Head(problem=problem, left_out=left_out, foreign=foreign)


def without_head(inner: Tensors, features: int) -> Head:
    """Return why none of the tensors beside the trunk is a classifier."""
    for name, tensor in inner.items():
        if HEAD.fullmatch(name.partition(".")[0]) and tensor.ndim == 2:
            shape = list(tensor.shape)
            return no_head(inner, f"{name} is {shape}, but the trunk has {features} features")
    return no_head(inner, "it has no classifier")


def foreign_layers(tensors: Tensors, heads: Iterable[str]) -> Tensors:
    """Return the tensors of layers that may change what the network computes.

    These are all but losses, counters, the layers `heads`, and further modules with a linear layer
    whose name is that of a classifier or a projection.
    """
    first = {name: name.partition(".")[0] for name in (*tensors, *heads)}
    known = {first[name] for name in heads}
    for name, tensor in tensors.items():
        module = first[name]
        if tensor.ndim in (2, 4) and (HEAD.fullmatch(module) or PROJECTION.fullmatch(module)):
            known.add(module)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if first[name] not in known and not is_beside_the_network(name)
    }


def is_beside_the_network(name: str) -> bool:
    """Return whether a tensor is part of a loss or a metric, or counts something."""
    return bool(COUNTER.fullmatch(name) or LOSS.fullmatch(name))
