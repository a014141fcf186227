"""The model file: weights, configuration, classes and preprocessing in one safetensors file."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import reslab
from reslab.errors import os_reason
from reslab.models.config import ResNetConfig, warn_small_map
from reslab.models.layers import Net, channels_last
from reslab.models.layout import describe_net, is_of_family, must_have_values
from reslab.models.model_facts import (
    build_without_weights,
    config_in,
    first_repeated,
    misfit,
    must_be_finite,
    must_have_types,
    must_match,
    names_in,
    preprocessing_in,
)
from reslab.models.preprocessing import MEAN_NAME, STD_NAME, Preprocessing
from reslab.models.resnet import ResNet
from reslab.runtime.files import TensorFile, warn_without_checksum
from reslab.runtime.writing import atomic_write

REQUIRED = {"config", "classes", "ids", "preprocessing", "recipe", "metrics", "batch_norm_folded"}


@dataclass(frozen=True)
class Model:
    """A trained network with everything needed to use it."""

    net: nn.Module  # a ResNet, except for a network of the user's own
    classes: tuple[str, ...]  # names of the outputs, for display
    preprocessing: Preprocessing
    recipe: dict[str, Any]  # empty for imported weights
    metrics: list[dict[str, Any]]
    ids: tuple[str, ...] = ()  # folder names (ImageNet: wnids); empty: same as classes
    folded: bool = False  # whether batch norm is folded into the convolutions
    own_net: str | None = None  # `describe_net`, if no configuration describes the network
    notes: tuple[str, ...] = ()  # for the user, on weights imported for this run; not in the file
    backend: str = "torch"  # what computes the network: torch, onnxruntime or openvino
    resizes: bool = False  # whether the network resizes and crops images itself (exported files)

    def __repr__(self) -> str:
        name = self.recipe.get("name", "weights from elsewhere")
        return f"Model({name!r}, {len(self.classes)} classes)"

    @property
    def resnet(self) -> ResNet:
        """The network as a `ResNet`; raises ValueError if no configuration describes it."""
        if self.own_net is not None or not isinstance(self.net, ResNet):
            label = (self.own_net or type(self.net).__name__).partition(";")[0]
            raise ValueError(
                f"the model's network is {label}, which no configuration describes: this needs a "
                "ResNet built from its configuration alone"
            )
        return self.net

    @property
    def config(self) -> ResNetConfig:
        """The configuration of the network; raises ValueError if the network is the user's own."""
        return self.resnet.config

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        types = (weight.dtype for weight in self.net.parameters())
        return next((dtype for dtype in types if dtype.is_floating_point), torch.float32)

    def to(self, device: torch.device) -> "Model":
        """Return the same model on a device; the network is moved in place."""
        return replace(self, net=self.net.to(device), preprocessing=self.preprocessing.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits: RGB uint8 [B, 3, H, W] -> [B, classes]."""
        if isinstance(self.net, ResNet):
            warn_small_map(self.net.config, min(images.shape[-2:]))
        return self.net(self._prepared(images)).float()

    def dense(self, images: Tensor) -> Tensor:
        """Return logits at every position (Sec. 3.4): RGB uint8 [B, 3, H, W] -> [B, classes, h, w].

        A position is a window of the size of the training images: an image of this size has one
        position, a larger one has several.
        """
        net, native = self.net, self.native_side
        if self.backend != "torch":
            raise ValueError(
                f"{self.backend} computes the network with its pooling over the whole map, so not "
                "fully convolutionally: choose a protocol with crops of one size, or the model "
                "in torch"
            )
        if not isinstance(net, ResNet):
            raise ValueError(
                f"{type(net).__name__} cannot be applied fully convolutionally, only a ResNet "
                "can: choose a protocol with crops of one size"
            )
        map_side = net.config.map_side
        if native is None:
            raise ValueError(
                "the model file does not state the size of its training images, which is needed "
                "here: choose a protocol with crops of one size"
            )
        height, width = images.shape[-2:]
        if map_side(min(height, width)) < map_side(native):
            raise ValueError(
                f"images of {height}x{width} pixels are smaller than the model's training images, "
                f"{native}x{native}"
            )
        return net.dense(self._prepared(images), map_side(native)).float()

    @property
    def has_names(self) -> bool:
        """Whether the outputs have names; those of imported weights may be only numbered."""
        numbers = tuple(map(str, range(len(self.classes))))
        return bool(self.recipe or self.ids) or self.classes != numbers

    @property
    def native_side(self) -> int | None:
        """The side of the training images, or None if the file does not state it."""
        side = self.preprocessing.mean.shape[-1]  # 1: a mean colour, which fits every size
        return self.preprocessing.size or (side if side > 1 else None)

    def _prepared(self, images: Tensor) -> Tensor:
        """Preprocess in fp32, then convert to the dtype of the weights."""
        return self.preprocessing(images).to(self.dtype)


def model_bytes(model: Model) -> bytes:
    """Return the content of a model file."""
    facts = {
        "reslab": reslab.__version__,
        "config": None if model.own_net else model.config.model_dump(mode="json"),
        "classes": model.classes,
        "ids": model.ids,
        "preprocessing": model.preprocessing.facts(),
        "recipe": model.recipe,
        "metrics": model.metrics,
        "batch_norm_folded": model.folded,
        **({"own_net": model.own_net} if model.own_net else {}),
    }
    return TensorFile(model.net.state_dict() | model.preprocessing.tensors(), facts).to_bytes()


def save_model(
    net: nn.Module,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    path: str | Path,
    ids: Sequence[str] = (),
) -> None:
    """Write a network trained elsewhere to a model file, for prediction and evaluation.

    `classes` are the names of the outputs. `ids` are the names of the class folders, if they differ
    (ImageNet: wnids). `preprocessing` is applied to every image; build it with `Preprocessing.of`.
    If the network is a `ResNet` with the layout that its configuration describes, the file is
    complete; any other network must be given again when the file is loaded. Raise ValueError if
    the number of names is not the number of outputs.
    """
    must_have_values(net)
    file, own_net = Path(path), None if is_of_family(net) else describe_net(net)
    model = Model(net, tuple(classes), preprocessing, {}, [], tuple(ids), own_net=own_net)
    if own_net is None and len(classes) != model.config.classes:
        raise ValueError(
            f"{len(classes)} classes, but the network has {model.config.classes} outputs"
        )
    if ids and len(ids) != len(classes):
        raise ValueError(f"{len(ids)} ids for {len(classes)} classes: give one per class, or none")
    if (repeated := first_repeated(list(ids or classes))) is not None:
        way_on = "ids must differ" if ids else "give ids that differ"
        raise ValueError(f"{repeated!r} occurs twice in {'ids' if ids else 'classes'}: {way_on}")
    if file.is_dir():
        raise ValueError(f"{path} is a folder: name a file, such as {file / 'model.safetensors'}")
    atomic_write(file, model_bytes(model))


def load_model(path: str | Path, net: nn.Module | None = None) -> Model:
    """Load a model file, or the one in a run folder, for inference.

    If the file holds a network of the user's own, `net` must be given, with the same layout; its
    weights are replaced. Raise ValueError if the file is not a classifier's model file or is
    damaged, or if its facts and tensors are not exactly those of the network; RuntimeError if any
    weight is infinite or NaN.
    """
    content = read_model_file(path)
    file, facts, tensors = content.path, content.facts, content.tensors
    if "detector" in facts:
        raise ValueError(f"{path} is a detector: `reslab detect` shows what it finds in an image")
    content.must_have(REQUIRED)
    must_have_types(facts, {"recipe": dict, "metrics": list, "batch_norm_folded": bool}, file)
    preprocessing = preprocessing_in(tensors, facts["preprocessing"], file)
    own_net = facts.get("own_net")
    if own_net is not None:
        outputs, net = None, must_have_layout(net, own_net, file)
    elif net is not None:
        raise ValueError(f"{file} describes its network: load it without net")
    else:
        config = config_in(ResNetConfig, facts["config"], file)
        outputs = config.classes
        net = build_without_weights(sum(config.blocks), partial(ResNet, config), tensors, file)
    classes, ids = names_in(facts, outputs, file)
    return Model(
        net=with_weights(net, tensors, file),
        classes=tuple(classes),
        preprocessing=preprocessing,
        recipe=facts["recipe"],
        metrics=facts["metrics"],
        ids=tuple(ids),
        folded=facts["batch_norm_folded"],
        own_net=own_net,
    )


def must_have_layout(net: nn.Module | None, own_net: str, file: Path) -> nn.Module:
    """Return `net`; raise ValueError unless it has the layout of the network in the file."""
    if net is None:
        raise ValueError(
            f"{file} holds a network of your own ({own_net}): give one of the same class, "
            f"reslab.load({str(file)!r}, net=...)"
        )
    if describe_net(net) != own_net:
        raise ValueError(f"{file} holds {own_net}, but the given network is {describe_net(net)}")
    return net


@dataclass(frozen=True)
class ModelContent:
    """The content of a model file, not validated apart from its checksum."""

    path: Path
    facts: dict[str, Any]
    tensors: dict[str, Tensor]
    has_checksum: bool  # some files from the first edition have none

    def must_have(self, keys: Set[str]) -> None:
        """Raise ValueError if `keys` or preprocessing are missing; warn if there is no checksum."""
        if not self.facts.keys() >= keys or not self.tensors.keys() >= {MEAN_NAME, STD_NAME}:
            raise not_a_model_file(self.path)
        if not self.has_checksum:
            warn_without_checksum(self.path)


def read_model_file(path: str | Path) -> ModelContent:
    """Read a model file, or the one in a run folder; ValueError if it is damaged."""
    file = model_file(path)
    try:
        content = TensorFile.read(file)
    except (ValueError, OSError) as error:
        raise _damaged(file, error) from None
    return ModelContent(file, content.facts, content.tensors, content.has_checksum)


def model_file(path: str | Path) -> Path:
    """Return the path of a model file, or of the one in a run folder; ValueError if missing."""
    file = Path(path)
    file = file / "model.safetensors" if file.is_dir() else file
    if not file.exists():
        raise ValueError(
            f"no model at {file}; give a finished run folder, a model file, or a name that "
            "`reslab weights` lists"
        )
    return file


def read_facts(file: Path) -> dict[str, Any]:
    """Read the facts of a model file, not its weights; ValueError if it is in another format."""
    try:
        return TensorFile.read_facts(file)
    except (ValueError, OSError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> ValueError:
    if isinstance(error, OSError):
        return ValueError(f"{file}: {os_reason(error)}")
    way_on = (
        "; `reslab import` reads weights from elsewhere" if file.suffix != ".safetensors" else ""
    )
    return ValueError(f"{file} is not a model file, or is damaged ({error}){way_on}")


def not_a_model_file(file: Path) -> ValueError:
    return ValueError(
        f"{file} was not written by reslab; `reslab import` reads weights from elsewhere"
    )


def with_weights(net: Net, tensors: dict[str, Tensor], file: Path) -> Net:
    """Load a file's tensors into a network, and return the network ready for inference.

    Raise ValueError if the tensors are not exactly the weights of the network, and RuntimeError
    if any weight is infinite or NaN.
    """
    must_match(net.state_dict(), tensors, file)
    must_be_finite(tensors, file)
    try:
        net.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise misfit(file, reason) from None
    return channels_last(net.eval()).requires_grad_(False)
