"""Build models from other programs' weights, if the file has exactly the network's tensors."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from reslab.models.batchnorm import is_folded
from reslab.models.config import ResNetConfig, all_models, config_named
from reslab.models.convert.layouts import (
    AUTHORS,
    BATCH_COUNT,
    LAYOUTS,
    Layout,
    NameMap,
    authors_tensors,
    with_slashes,
)
from reslab.models.convert.tensor_files import mean_shaped, read_mean, read_tensors
from reslab.models.model_file import Model, with_weights
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import ResNet

ONE_CROP = (256, 224)  # shorter side and crop for the published results of ImageNet nets
NAMES_SHOWN = 3  # tensor names in an error
MEAN_KEY = "mean"  # the name of the mean image in a file of the authors' layout


@dataclass(frozen=True)
class Imported:
    """An imported model, with the settings that its file's layout determined."""

    model: Model
    layout: Layout
    asked: ResNetConfig  # the configuration of the requested name
    decided: dict[str, str]  # fields of the configuration that the layout overrides


def import_model(file: Path, name: str, mean: Path | None = None) -> Imported:
    """Return the network `name` with the weights from a file; its classes are "0", "1", ...

    `mean` is a file with the mean image or colour, for layouts that do not determine it.
    """
    asked = config_named(name)
    mean_image = read_mean(mean) if mean else None
    tensors = read_tensors(file).tensors
    layout = layout_of(tensors, file)
    if layout is AUTHORS:
        tensors = authors_tensors(with_slashes(tensors))
        stored_mean = tensors.pop(MEAN_KEY, None)
        if mean_image is None and stored_mean is not None:
            mean_image = mean_shaped(stored_mean, f"{file}: {MEAN_KEY}")
    net = build_imported(asked, name, layout, tensors, file)
    model = Model(
        net=net,
        classes=tuple(map(str, range(net.config.classes))),
        preprocessing=preprocessing_of(layout, net.config, mean_image, file),
        recipe={},
        metrics=[],
        folded=is_folded(net),
    )
    return Imported(model, layout, asked, relevant_overrides(asked, layout))


def layout_of(tensors: dict[str, Tensor], file: Path) -> Layout:
    """Recognise the layout of a file by the names of its tensors."""
    names = tensors.keys() | with_slashes(tensors).keys()
    for layout in LAYOUTS:
        if names >= set(layout.marks):
            return layout
    some = ", ".join(list(tensors)[:NAMES_SHOWN]) or "none"
    known = ", ".join(layout.title for layout in LAYOUTS)
    raise ValueError(f"{file}: the names of its tensors ({some}, ...) match none of {known}")


def build_imported(
    asked: ResNetConfig, name: str, layout: Layout, tensors: dict[str, Tensor], file: Path
) -> ResNet:
    """Build the network `name` with tensors under the layout's names, ready for inference.

    Raise ValueError, naming the networks that do fit, if the tensors do not fit this network.
    """
    if layout.stem not in (None, asked.stem):
        raise ValueError(
            f"{file} has {layout.title}, which belong to nets with the {layout.stem} stem; "
            f"{name} has the {asked.stem} stem{fitting_networks(layout, tensors)}"
        )
    net = ResNet(apply_layout(asked, layout, tensors))
    names = layout.names(net)
    if mismatch := weight_mismatch(net, names, tensors):
        raise ValueError(f"{file} is not {name}: {mismatch}{fitting_networks(layout, tensors)}")
    state = {ours: tensors[theirs] for ours, theirs in names.items() if theirs in tensors}
    counts = {ours: t for ours, t in net.state_dict().items() if ours.endswith(BATCH_COUNT)}
    return with_weights(net, counts | state, file)


def apply_layout(asked: ResNetConfig, layout: Layout, tensors: dict[str, Tensor]) -> ResNetConfig:
    """Apply the layout's overrides and the file's number of outputs to a configuration."""
    update: dict[str, object] = {**relevant_overrides(asked, layout)}
    classifier = tensors.get(layout.classifier)
    if classifier is not None and classifier.ndim == 2:
        update["classes"] = max(len(classifier), 2)
    return asked.model_copy(update=update)


def relevant_overrides(config: ResNetConfig, layout: Layout) -> dict[str, str]:
    """Return the layout's overrides that make a difference for this configuration."""
    relevant = {
        "stride_on": config.block == "bottleneck",
        "pool": config.stem == "imagenet",
        "zeros": config.option == "A",
    }
    return {field: value for field, value in layout.overrides.items() if relevant[field]}


def weight_mismatch(net: ResNet, names: NameMap, tensors: dict[str, Tensor]) -> str:
    """Return one line about the tensors that do not fit the network, or "" if all of them fit."""
    weights = net.state_dict()
    shapes = {theirs: list(weights[ours].shape) for ours, theirs in names.items()}
    missing = [name for name in shapes if name not in tensors and BATCH_COUNT not in name]
    extra = [name for name in tensors if name not in shapes]
    misshapen = [
        f"{name} is {list(tensors[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in tensors and list(tensors[name].shape) != shape
    ]
    if not missing and not extra and not misshapen:
        return ""
    plural = "weight is" if len(missing) == 1 else "weights are"
    mismatch = f"{len(missing)} {plural} missing{first_names(missing)}, "
    mismatch += f"{len(extra)} too many{first_names(extra)}"
    if misshapen:
        more = f" (and {len(misshapen) - 1} more)" if misshapen[1:] else ""
        mismatch += f"; {misshapen[0]}{more}"
    return mismatch


def first_names(names: list[str]) -> str:
    """Return the first few names in parentheses after a space, or "" if there are none."""
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return f" ({', '.join(names[:NAMES_SHOWN])}{more})" if names else ""


def fitting_networks(layout: Layout, tensors: dict[str, Tensor]) -> str:
    """Return the end of a sentence that lists the named networks with exactly these tensors."""
    layers = sum(tensor.ndim in (2, 4) for tensor in tensors.values())
    names: dict[ResNetConfig, str] = {}  # the first name of each network
    for name, config in all_models().items():
        names.setdefault(config, name)
    fitting = []
    for config, name in names.items():
        # the paper's count, plus at most one projection per block: a cheap test before building
        possible = config.depth <= layers <= config.depth + sum(config.blocks)
        if layout.stem not in (None, config.stem) or not possible:
            continue
        net = ResNet(apply_layout(config, layout, tensors))
        if not weight_mismatch(net, layout.names(net), tensors):
            fitting.append(name)
    return f"; it fits {', '.join(fitting)}" if fitting else "; it fits no network that has a name"


def preprocessing_of(
    layout: Layout, config: ResNetConfig, mean_image: Tensor | None, file: Path
) -> Preprocessing:
    """Return the preprocessing for networks of a layout.

    `mean_image` is [3, H, W] in the layout's channel order, or None if no file was given.
    """
    if mean_image is not None and not layout.asks_mean:
        raise ValueError(f"{file} has {layout.title}, whose mean is known: leave out `mean`")
    if mean_image is not None:
        mean = mean_image.flip(0) if layout.channels == "BGR" else mean_image
    elif layout.mean is not None:
        mean = torch.tensor(layout.mean)[:, None, None]
    else:
        raise ValueError(
            f"{file} has {layout.title}, which do not determine the mean to subtract: give a file "
            "as `mean` (.npy or .npz; red, green, blue from 0 to 255; [3] or [3, H, W])"
        )
    std = torch.tensor(layout.std)[:, None, None]
    resize, size = ONE_CROP if config.stem == "imagenet" else (layout.side, layout.side)
    return Preprocessing(mean.contiguous(), std, layout.channels, resize, size)
