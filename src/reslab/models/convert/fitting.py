"""Compare the tensors of another program's file with the networks that have a name."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from reslab.models.config import ResNetConfig, all_models, config_named
from reslab.models.convert.heads import Head
from reslab.models.convert.layouts import BATCH_COUNT, OWN, Layout, NameMap
from reslab.models.resnet import ResNet

NAMES_SHOWN = 3  # tensor names in a message
FRESH_OUTPUTS = 2  # of a classifier at zero, where the file has none


@dataclass(frozen=True)
class Source:
    """The network in another program's file."""

    file: Path
    layout: Layout
    trunk: dict[str, Tensor]  # all tensors but the classifier's
    head: Head
    overrides: dict[str, str]  # fields of the configuration
    left_out: tuple[str, ...]

    def config(self, named: ResNetConfig) -> ResNetConfig:
        """Return a named configuration with the file's overrides and number of outputs."""
        layer = self.head.layer
        outputs = FRESH_OUTPUTS if layer is None else len(layer[0])
        return named.model_copy(update={**self.decided(named), "classes": outputs})

    def decided(self, config: ResNetConfig) -> dict[str, str]:
        """Return the overrides that make a difference for this configuration."""
        relevant = {
            "stride_on": config.block == "bottleneck",
            "pool": config.stem == "imagenet",
            "zeros": config.option == "A",
        }
        return {field: value for field, value in self.overrides.items() if relevant[field]}

    def mismatch(self, named: ResNetConfig) -> "Mismatch":
        """Compare the file's tensors with those of a named network."""
        with torch.device("meta"):
            net = ResNet(self.config(named))
        return compare(net, self.layout.names(net), self.trunk, self.head)


@dataclass(frozen=True)
class Mismatch:
    """The tensors of a file that do not fit a network."""

    missing: list[str]
    extra: list[str]
    misshapen: list[str]  # each with its shape, and the one expected

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.extra) + len(self.misshapen)

    def __str__(self) -> str:
        plural = "weight is" if len(self.missing) == 1 else "weights are"
        line = f"{len(self.missing)} {plural} missing{first_names(self.missing)}, "
        line += f"{len(self.extra)} too many{first_names(self.extra)}"
        if self.misshapen:
            more = f" (and {len(self.misshapen) - 1} more)" if self.misshapen[1:] else ""
            line += f"; {self.misshapen[0]}{more}"
        return line


def must_take_colours(source: Source, names: NameMap) -> None:
    """Raise ValueError if the first convolution takes another number of channels than three."""
    name = names["stem.0.conv.weight"]
    kernel = source.trunk.get(name)
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] != 3:
        count = kernel.shape[1]
        way_on = "; for grey images, save it as weight.repeat(1, 3, 1, 1) / 3" if count == 1 else ""
        raise ValueError(
            f"{source.file}: {name} takes images with {count} channel{'s' if count > 1 else ''}, "
            f"but the networks here take three: red, green, blue{way_on}"
        )


def compare(net: ResNet, names: NameMap, tensors: dict[str, Tensor], head: Head) -> Mismatch:
    """Compare a file's tensors with those of a network, whose names in the file are `names`."""
    weights = net.state_dict()
    shapes = {theirs: list(weights[ours].shape) for ours, theirs in names.items()}
    misshapen = [
        f"{name} is {list(tensors[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in tensors and list(tensors[name].shape) != shape
    ]
    if head.layer is not None and head.layer[0].shape != net.fc.weight.shape:
        found, expected = list(head.layer[0].shape), list(net.fc.weight.shape)
        misshapen.append(f"{head.name} is {found}, expected {expected}")
    return Mismatch(
        missing=[name for name in shapes if name not in tensors and BATCH_COUNT not in name],
        extra=[name for name in tensors if name not in shapes],
        misshapen=misshapen,
    )


def first_names(names: list[str]) -> str:
    """Return the first few names in parentheses after a space, or "" if there are none."""
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return f" ({', '.join(names[:NAMES_SHOWN])}{more})" if names else ""


def candidates(source: Source) -> dict[str, ResNetConfig]:
    """Return the named networks that a file of this layout may hold; each network once.

    Plain nets are written by reslab alone, so other layouts leave them out: option A has the same
    tensors.
    """
    names: dict[ResNetConfig, str] = {}
    for name, config in all_models().items():
        if source.layout.stem in (None, config.stem) and (
            config.option is not None or source.layout is OWN
        ):
            names.setdefault(source.config(config), name)
    return {name: config_named(name) for name in names.values()}


def fitting_networks(source: Source) -> list[str]:
    """Return the names of the networks with exactly a file's tensors."""
    convolutions = sum(tensor.ndim == 4 for tensor in source.trunk.values())
    return [
        name
        for name, config in candidates(source).items()
        # the paper's count, plus at most one projection per block: a cheap test before building
        if config.depth - 1 <= convolutions < config.depth + sum(config.blocks)
        and not source.mismatch(config).count
    ]


def fitting_in_words(source: Source) -> str:
    """Return the end of a sentence that lists the named networks with exactly these tensors."""
    fitting = fitting_networks(source)
    return f"; it fits {', '.join(fitting)}" if fitting else "; it fits no network that has a name"


def fitting_network(source: Source) -> str:
    """Return the name of the only network that fits; ValueError if none or several do."""
    fitting = fitting_networks(source)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(
            f"{source.file} fits {' and '.join(fitting)}: name one with `reslab import --as`"
        )
    found = {name: source.mismatch(config) for name, config in candidates(source).items()}
    nearest = min(found, key=lambda name: found[name].count)
    must_take_colours(source, source.layout.names(ResNet(config_named(nearest))))
    raise ValueError(
        f"{source.file} fits no network that has a name; nearest is {nearest}, but {found[nearest]}"
    )
