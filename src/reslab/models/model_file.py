"""The model file: weights, configuration, classes and preprocessing in one safetensors file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import reslab
from reslab.models.config import ResNetConfig
from reslab.models.layers import Net, channels_last
from reslab.models.preprocessing import MEAN_NAME, STD_NAME, Preprocessing, pop_preprocessing
from reslab.models.resnet import ResNet
from reslab.runtime.files import TensorFile

REQUIRED = {"config", "classes", "ids", "preprocessing", "recipe", "metrics", "batch_norm_folded"}


@dataclass(frozen=True)
class Model:
    """A trained network with everything that its use requires."""

    net: ResNet
    classes: tuple[str, ...]  # names of the outputs, for people
    preprocessing: Preprocessing
    recipe: dict[str, Any]  # empty for weights from elsewhere
    metrics: list[dict[str, Any]]
    ids: tuple[str, ...] = ()  # folder names of the outputs (ImageNet: wnids); empty: the classes
    folded: bool = False  # batch norm went into the convolutions: mean 0, variance 1 everywhere

    def to(self, device: torch.device) -> "Model":
        """Return the same model on a device; the network itself moves."""
        return replace(self, net=self.net.to(device), preprocessing=self.preprocessing.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        """RGB bytes [B, 3, H, W] -> scores before the softmax, [B, classes]."""
        return self.net(self._prepared(images)).float()

    def dense(self, images: Tensor) -> Tensor:
        """RGB bytes [B, 3, H, W] -> scores at every position, [B, classes, h, w] (Sec. 3.4).

        A position is a window of the size of the training images: images of that size have one,
        larger ones more.
        """
        native, map_side = self.native_side, self.net.config.map_side
        if native is None:
            raise ValueError("this model does not say for which size of images it was trained")
        height, width = images.shape[-2:]
        if map_side(min(height, width)) < map_side(native):
            raise ValueError(
                f"images of {height}x{width} are below the network's own size, {native}"
            )
        return self.net.dense(self._prepared(images), map_side(native)).float()

    @property
    def native_side(self) -> int | None:
        """The side of the images that it was trained on, where the file says so."""
        side = self.preprocessing.mean.shape[-1]  # 1: a colour, which goes with every size
        return self.preprocessing.size or (side if side > 1 else None)

    def _prepared(self, images: Tensor) -> Tensor:
        """Preprocess in fp32, then convert to the type of the weights."""
        return self.preprocessing(images).to(self.net.fc.weight.dtype)


def model_bytes(model: Model) -> bytes:
    """Return the content of a model file."""
    facts = {
        "reslab": reslab.__version__,
        "config": model.net.config.model_dump(mode="json"),
        "classes": model.classes,
        "ids": model.ids,
        "preprocessing": model.preprocessing.facts(),
        "recipe": model.recipe,
        "metrics": model.metrics,
        "batch_norm_folded": model.folded,
    }
    return TensorFile(model.net.state_dict() | model.preprocessing.tensors(), facts).to_bytes()


def load_model(path: str | Path) -> Model:
    """Load a model file, or the one in a run folder, for inference.

    ValueError for a file of something else, for a damaged one, and unless every weight of the
    network is in it and no other.
    """
    file, facts, tensors = read_model_file(path)
    if "detector" in facts:
        raise ValueError(f"{path} is a detector: `reslab detect` shows what it finds in an image")
    if not facts.keys() >= REQUIRED or not tensors.keys() >= {MEAN_NAME, STD_NAME}:
        raise not_a_model_file(file)
    preprocessing = pop_preprocessing(tensors, facts["preprocessing"])
    config = ResNetConfig.model_validate(facts["config"])
    return Model(
        net=with_weights(ResNet(config), tensors, file),
        classes=tuple(facts["classes"]),
        preprocessing=preprocessing,
        recipe=facts["recipe"],
        metrics=facts["metrics"],
        ids=tuple(facts["ids"]),
        folded=facts["batch_norm_folded"],
    )


def read_model_file(path: str | Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """Read a model file, or the one in a run folder; return its path, facts and tensors."""
    file = model_file(path)
    try:
        content = TensorFile.read(file)
    except (ValueError, OSError) as error:
        raise _damaged(file, error) from None
    return file, content.facts, content.tensors


def model_file(path: str | Path) -> Path:
    """Return the path of a model file, or of the one in a run folder; ValueError without one."""
    file = Path(path)
    file = file / "model.safetensors" if file.is_dir() else file
    if not file.exists():
        raise ValueError(f"no model at {file}; give a finished run folder or a model file")
    return file


def read_facts(file: Path) -> dict[str, Any]:
    """Read the facts of a model file without its weights; ValueError for another file."""
    try:
        return TensorFile.read_facts(file)
    except (ValueError, OSError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} is no model file, or a damaged one ({error})")


def not_a_model_file(file: Path) -> ValueError:
    return ValueError(
        f"{file} was not written by reslab; `reslab import` reads weights from elsewhere"
    )


def with_weights(net: Net, tensors: dict[str, Tensor], file: Path) -> Net:
    """Give a network the weights of a file, and return it ready for inference.

    ValueError unless every weight is among the tensors and no other.
    """
    try:
        net.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} does not fit its own configuration: {reason}") from None
    return channels_last(net.eval()).requires_grad_(False)
