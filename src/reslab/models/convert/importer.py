"""Weights from elsewhere become models: a tensor without a place is refused, and the reverse."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

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
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import ResNet, channels_last

ONE_CROP = (256, 224)  # that the ImageNet nets are quoted with
NAMES_SHOWN = 3  # names of a difference
MEAN_KEY = "mean"  # of the mean image in a file of the authors' layout


@dataclass(frozen=True)
class Imported:
    """A model, and what the layout of its file decided about it."""

    model: Model
    layout: Layout
    asked: ResNetConfig  # what the name means by itself
    decided: dict[str, str]  # fields of the configuration


def import_model(file: Path, name: str, mean: Path | None = None) -> Imported:
    """The network `name` with the weights of a file; its outputs are called "0", "1", ...

    `mean` is a file of the mean image or colour, where the layout leaves it open.
    """
    asked = config_named(name)
    given = read_mean(mean) if mean else None
    tensors = read_tensors(file)
    layout = layout_of(tensors, file)
    if layout is AUTHORS:
        tensors = authors_tensors(with_slashes(tensors))
        inside = tensors.pop(MEAN_KEY, None)
        if given is None and inside is not None:
            given = mean_shaped(inside, f"{file}: {MEAN_KEY}")
    if layout.stem not in (None, asked.stem):
        raise ValueError(
            f"{file} has {layout.title}, which belong to nets with the {layout.stem} stem; "
            f"{name} has the {asked.stem} stem{nearest(layout, tensors)}"
        )
    config = apply_layout(asked, layout, tensors)
    net = ResNet(config)
    names = layout.names(net)
    if wrong := weight_mismatch(net, names, tensors):
        raise ValueError(f"{file} is not {name}: {wrong}{nearest(layout, tensors)}")
    state = {ours: tensors[theirs] for ours, theirs in names.items() if theirs in tensors}
    counts = {ours: t for ours, t in net.state_dict().items() if ours.endswith(BATCH_COUNT)}
    net.load_state_dict(counts | state, assign=True)
    model = Model(
        net=channels_last(net.eval()).requires_grad_(False),
        classes=tuple(map(str, range(config.classes))),
        preprocessing=preprocessing_of(layout, config, given, file),
        recipe={},
        metrics=[],
        folded=is_folded(net),
    )
    return Imported(
        model, layout, asked, {f: layout.overrides[f] for f in relevant_fields(asked, layout)}
    )


def layout_of(tensors: dict[str, Tensor], file: Path) -> Layout:
    """The layout whose marks are among the names."""
    names = tensors.keys() | with_slashes(tensors).keys()
    for layout in LAYOUTS:
        if names >= set(layout.marks):
            return layout
    some = ", ".join(list(tensors)[:NAMES_SHOWN]) or "none"
    known = ", ".join(layout.title for layout in LAYOUTS)
    raise ValueError(f"{file}: the names of its tensors ({some}, ...) are not {known}")


def apply_layout(asked: ResNetConfig, layout: Layout, tensors: dict[str, Tensor]) -> ResNetConfig:
    """The configuration asked for, with what the layout decides and the file's outputs."""
    update: dict[str, object] = {f: layout.overrides[f] for f in relevant_fields(asked, layout)}
    classifier = tensors.get(layout.classifier)
    if classifier is not None and classifier.ndim == 2:
        update["classes"] = max(len(classifier), 2)
    return asked.model_copy(update=update)


def relevant_fields(config: ResNetConfig, layout: Layout) -> list[str]:
    """The fields that a layout decides, of those that matter to a configuration."""
    matters = {
        "stride_on": config.block == "bottleneck",
        "pool": config.stem == "imagenet",
        "zeros": config.shortcut == "A",
    }
    return [field for field in layout.overrides if matters[field]]


def weight_mismatch(net: ResNet, names: NameMap, tensors: dict[str, Tensor]) -> str:
    """What of a file does not fit the network, in one line; empty if all does."""
    expected = {names[ours]: list(tensor.shape) for ours, tensor in net.state_dict().items()
                if ours in names}  # fmt: skip
    missing = [theirs for theirs in expected if theirs not in tensors and BATCH_COUNT not in theirs]
    over = [theirs for theirs in tensors if theirs not in expected]
    shapes = [
        f"{theirs} is {list(tensors[theirs].shape)}, expected {shape}"
        for theirs, shape in expected.items()
        if theirs in tensors and list(tensors[theirs].shape) != shape
    ]
    if not missing and not over and not shapes:
        return ""
    plural = "weight is" if len(missing) == 1 else "weights are"
    reported = [f"{len(missing)} {plural} missing{some(missing)}, {len(over)} too many{some(over)}"]
    if shapes:
        reported.append(shapes[0] + (f" (and {len(shapes) - 1} more)" if shapes[1:] else ""))
    return "; ".join(reported)


def some(names: list[str]) -> str:
    """The first few of some names, in brackets."""
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return f" ({', '.join(names[:NAMES_SHOWN])}{more})" if names else ""


def nearest(layout: Layout, tensors: dict[str, Tensor]) -> str:
    """The named networks that a file does fit, as the end of a sentence."""
    layers = sum(tensor.ndim in (2, 4) for tensor in tensors.values())
    names: dict[ResNetConfig, str] = {}  # the first of those that mean the same
    for name, config in all_models().items():
        names.setdefault(config, name)
    fitting = []
    for config, name in names.items():
        # as the paper counts, and at most one projection a block: spares building deep nets
        possible = config.depth <= layers <= config.depth + sum(config.blocks)
        if layout.stem not in (None, config.stem) or not possible:
            continue
        net = ResNet(apply_layout(config, layout, tensors))
        if not weight_mismatch(net, layout.names(net), tensors):
            fitting.append(name)
    return f"; it fits {', '.join(fitting)}" if fitting else "; it fits no network that has a name"


def preprocessing_of(
    layout: Layout, config: ResNetConfig, given: Tensor | None, file: Path
) -> Preprocessing:
    """What the layout's nets are shown; `given` is a mean in the layout's order of channels."""
    if given is not None and not layout.asks_mean:
        raise ValueError(f"{file} has {layout.title}, whose mean is known: leave out --mean")
    if given is not None:
        mean = given.flip(0) if layout.channels == "BGR" else given
    elif layout.mean is not None:
        mean = torch.tensor(layout.mean)[:, None, None]
    else:
        raise ValueError(
            f"{file} has {layout.title}, which do not say what is subtracted from an image: "
            "give --mean FILE (.npy or .npz; red, green, blue of 0 to 255; [3] or [3, H, W])"
        )
    std = torch.tensor(layout.std)[:, None, None]
    numbers = ONE_CROP if config.stem == "imagenet" else (layout.side, layout.side)
    return Preprocessing(mean.contiguous(), std, layout.channels, *numbers)


def is_folded(net: nn.Module) -> bool:
    """Whether batch norm went into the convolutions: mean 0 and variance 1 everywhere.

    So has an untrained net, but its biases, into which the means go, are 0 as well.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    unused = all(
        bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all())
        for norm in norms
        if norm.running_mean is not None and norm.running_var is not None
    )
    return unused and any(bool(norm.bias.any()) for norm in norms)
