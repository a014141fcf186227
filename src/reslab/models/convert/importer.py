"""Build models from other programs' weights, if the file has exactly the network's tensors."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from reslab.models.batchnorm import is_folded
from reslab.models.config import ResNetConfig, config_named
from reslab.models.convert.beside import Sidecar, class_names, read_sidecar
from reslab.models.convert.fitting import (
    NAMES_SHOWN,
    Source,
    compare,
    fitting_in_words,
    fitting_network,
    must_take_colours,
)
from reslab.models.convert.heads import COUNTER, Head, find_head
from reslab.models.convert.layouts import (
    AUTHORS,
    BATCH_COUNT,
    LAYOUTS,
    Layout,
    authors_tensors,
    with_slashes,
)
from reslab.models.convert.tensor_files import mean_shaped, read_mean, read_tensors, to_fp32
from reslab.models.convert.wrapping import Weights
from reslab.models.model_file import Model, with_weights
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import ResNet

ONE_CROP = (256, 224)  # shorter side and crop for the published results of ImageNet nets
MEAN_KEY = "mean"  # the name of the mean image in a file of the authors' layout


@dataclass(frozen=True)
class Imported:
    """An imported model, with the settings that its file determined."""

    model: Model
    network: str  # its name
    layout: Layout
    asked: ResNetConfig  # the configuration of that name
    decided: dict[str, str]  # fields of the configuration that the file overrides
    left_out: tuple[str, ...]  # tensors of the file, or all below a name, that are not used
    notes: tuple[str, ...] = ()  # for the user


def import_model(file: Path, name: str | None = None, mean: Path | None = None) -> Imported:
    """Return the network `name`, or the only one that fits, with the weights from a file.

    `mean` is a file with the mean image or colour, for layouts that do not determine it. Outputs
    that the file does not name are "0", "1", ... Raise ValueError if the file has no classifier.
    """
    imported, head = open_network(file, name, mean)
    if head.problem:
        raise ValueError(
            f"{file}: {head.problem}; `reslab train` can start from it (--weights), with a new "
            "classifier"
        )
    return imported


def import_to_start(file: Path) -> Imported:
    """Return the only network that fits a file's weights, for a run to start from.

    If the file has no classifier, or one that cannot be used, the model's is at zero.
    """
    imported, head = open_network(file, None, None)
    if not head.problem:
        return imported
    return replace(imported, notes=(*imported.notes, f"{head.problem}: a new one is trained"))


def open_network(file: Path, name: str | None, mean: Path | None) -> tuple[Imported, Head]:
    """Return the network of a file, and its classifier, which may be missing."""
    named = config_named(name) if name else None
    mean_image = read_mean(mean) if mean else None
    weights = read_tensors(file)
    layout = layout_of(weights.tensors, file)
    if layout is AUTHORS:
        tensors = authors_tensors(with_slashes(weights.tensors))
        stored_mean = tensors.pop(MEAN_KEY, None)
        if mean_image is None and stored_mean is not None:
            mean_image = mean_shaped(stored_mean, f"{file}: {MEAN_KEY}")
        weights = replace(weights, tensors=tensors)
    sidecar = read_sidecar(file, layout, weights)
    source = network_in(weights, layout, sidecar, file)
    name = name or fitting_network(source)
    named = named or config_named(name)
    net = build_imported(source, named, name)
    names, note = (
        ((), "") if source.head.problem else class_names(weights, sidecar, net.config.classes)
    )
    model = Model(
        net=net,
        classes=names or tuple(map(str, range(net.config.classes))),
        preprocessing=preprocessing_of(layout, net.config, mean_image, sidecar, file),
        recipe={},
        metrics=[],
        folded=is_folded(net),
    )
    notes = (note,) if note else ()
    return Imported(
        model, name, layout, named, source.decided(named), source.left_out, notes
    ), source.head


def layout_of(tensors: dict[str, Tensor], file: Path) -> Layout:
    """Recognise the layout of a file by the names of its tensors."""
    names = tensors.keys() | with_slashes(tensors).keys()
    for layout in LAYOUTS:
        if names >= set(layout.marks) and not names & set(layout.absent):
            return layout
    some = ", ".join(list(tensors)[:NAMES_SHOWN]) or "none"
    known = ", ".join(layout.title for layout in LAYOUTS)
    raise ValueError(f"{file}: the names of its tensors ({some}, ...) match none of {known}")


def network_in(weights: Weights, layout: Layout, sidecar: Sidecar, file: Path) -> Source:
    """Split a file's tensors into the network's and those that are left out."""
    head = find_head(weights, layout)
    if head.layer is not None:
        weight, bias = (to_fp32(tensor, head.name, file) for tensor in head.layer)
        head = replace(head, layer=(weight, bias))
    trunk = {name: t for name, t in weights.tensors.items() if re.match(layout.trunk, name)}
    counters = [name for name in trunk if COUNTER.fullmatch(name) and BATCH_COUNT not in name]
    for name in counters:
        del trunk[name]
    groups = [g for g in weights.left_out if not head.name.startswith(g)]
    covered = tuple(f"{group}." for group in groups)
    single = [name for name in (*head.left_out, *counters) if not name.startswith(covered)]
    left_out = dict.fromkeys([*groups, *single])
    overrides = {**layout.overrides}
    if sidecar.stride_on:
        overrides["stride_on"] = sidecar.stride_on
    return Source(file, layout, {**trunk, **head.foreign}, head, overrides, tuple(left_out))


def build_imported(source: Source, named: ResNetConfig, name: str) -> ResNet:
    """Build the network `name` with a file's weights, ready for inference.

    Raise ValueError, naming the networks that do fit, if the tensors do not fit this network.
    """
    file, layout, head = source.file, source.layout, source.head
    if layout.stem not in (None, named.stem):
        raise ValueError(
            f"{file} has {layout.title}, which belong to nets with the {layout.stem} stem; "
            f"{name} has the {named.stem} stem{fitting_in_words(source)}"
        )
    net = ResNet(source.config(named))
    names = layout.names(net)
    must_take_colours(source, names)
    mismatch = compare(net, names, source.trunk, head)
    if mismatch.count:
        raise ValueError(f"{file} is not {name}: {mismatch}{fitting_in_words(source)}")
    state = {ours: t for ours, t in net.state_dict().items() if ours.endswith(BATCH_COUNT)}
    state |= {
        ours: source.trunk[theirs] for ours, theirs in names.items() if theirs in source.trunk
    }
    fresh = (torch.zeros_like(net.fc.weight), torch.zeros_like(net.fc.bias))
    state["fc.weight"], state["fc.bias"] = head.layer or fresh
    return with_weights(net, state, file)


def preprocessing_of(
    layout: Layout,
    config: ResNetConfig,
    mean_image: Tensor | None,
    sidecar: Sidecar,
    file: Path,
) -> Preprocessing:
    """Return the preprocessing for networks of a layout.

    `mean_image` is [3, H, W] in the layout's channel order, or None if no file was given.
    """
    if mean_image is not None and not layout.asks_mean:
        raise ValueError(f"{file} has {layout.title}, whose mean is known: leave out `mean`")
    colour = sidecar.mean or layout.mean
    if mean_image is not None:
        mean = mean_image.flip(0) if layout.channels == "BGR" else mean_image
    elif colour is not None:
        mean = torch.tensor(colour)[:, None, None]
    else:
        raise ValueError(
            f"{file} has {layout.title}, which do not determine the mean to subtract: give "
            "`reslab import` a file as `mean` (.npy or .npz; red, green, blue from 0 to 255; [3] "
            "or [3, H, W])"
        )
    std = torch.tensor(sidecar.std or layout.std)[:, None, None]
    resize, size = ONE_CROP if config.stem == "imagenet" else (layout.side, layout.side)
    channels = sidecar.channels or layout.channels
    return Preprocessing(mean.contiguous(), std, channels, resize, size)
