"""The model file: weights, configuration, classes and preprocessing in one safetensors file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import reslab
from reslab.models.config import ResNetConfig
from reslab.models.preprocessing import MEAN_NAME, STD_NAME, Preprocessing, taken_from
from reslab.models.resnet import ResNet, channels_last
from reslab.runtime.files import TensorFile

# what a use of the file needs
WRITTEN = {"config", "classes", "ids", "preprocessing", "recipe", "metrics", "batch_norm_folded"}


@dataclass(frozen=True)
class Model:
    """A trained network with all that its use needs."""

    net: ResNet
    classes: tuple[str, ...]  # names of the outputs, for people
    preprocessing: Preprocessing
    recipe: dict[str, Any]  # empty for weights that come from elsewhere
    metrics: list[dict[str, Any]]
    ids: tuple[str, ...] = ()  # what folders call the outputs (ImageNet: wnids); none: the names
    folded: bool = False  # batch norm went into the convolutions: mean 0, variance 1 everywhere

    def to(self, device: torch.device) -> "Model":
        """The same model on a device; the network itself moves."""
        return replace(self, net=self.net.to(device), preprocessing=self.preprocessing.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        """RGB bytes [B, 3, H, W] -> scores before the softmax, [B, classes]."""
        return self.net(self._input(images)).float()

    def dense(self, images: Tensor) -> Tensor:
        """RGB bytes [B, 3, H, W] -> scores at every position, [B, classes, h, w] (Sec. 3.4).

        The network is applied as at each place of the size that it was trained on: one position
        at that size, more where the images are larger.
        """
        own, map_side = self.own_side, self.net.config.map_side
        if own is None:
            raise ValueError("this model does not say for which size of images it was trained")
        if map_side(min(images.shape[-2:])) < map_side(own):
            height, width = images.shape[-2:]
            raise ValueError(f"images of {height}x{width} are below the network's own size, {own}")
        return self.net.dense(self._input(images), map_side(own)).float()

    @property
    def own_side(self) -> int | None:
        """Of the images that it was trained on, where the file says so."""
        side = self.preprocessing.mean.shape[-1]  # 1: a colour, which goes with every size
        return self.preprocessing.size or (side if side > 1 else None)

    def _input(self, images: Tensor) -> Tensor:
        """Prepared in fp32, then in the numbers that the network computes in."""
        return self.preprocessing(images).to(self.net.fc.weight.dtype)


def model_bytes(model: Model) -> bytes:
    """The model file as bytes."""
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
    """A model file, or the one in a run folder; strict: every weight is there and no other."""
    file, facts, tensors = read_model_file(path)
    if "detector" in facts:
        raise ValueError(f"{path} is a detector: `reslab detect` shows what it finds in an image")
    if not facts.keys() >= WRITTEN or not tensors.keys() >= {MEAN_NAME, STD_NAME}:
        raise not_a_model_file(file)
    preprocessing = taken_from(tensors, facts["preprocessing"])
    net = ResNet(ResNetConfig.model_validate(facts["config"]))
    load_weights_strictly(net, tensors, file)
    return Model(
        net=channels_last(net.eval()).requires_grad_(False),
        classes=tuple(facts["classes"]),
        preprocessing=preprocessing,
        recipe=facts["recipe"],
        metrics=facts["metrics"],
        ids=tuple(facts["ids"]),
        folded=facts["batch_norm_folded"],
    )


def read_model_file(path: str | Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """The file at `path`, or the one in a run folder there; its facts and its tensors."""
    file = model_file(path)
    try:
        content = TensorFile.read(file)
    except (ValueError, OSError) as error:
        raise _damaged(file, error) from None
    return file, content.facts, content.tensors


def model_file(path: str | Path) -> Path:
    """A model file, or the one in a run folder; ValueError if it is not there."""
    file = Path(path)
    file = file / "model.safetensors" if file.is_dir() else file
    if not file.exists():
        raise ValueError(f"no model at {file}; give a finished run folder or a model file")
    return file


def read_facts(file: Path) -> dict[str, Any]:
    """The facts of a model file, without its weights; ValueError if it is none."""
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


def load_weights_strictly(net: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    """Give a network the weights of a file; ValueError unless every one is there and no other."""
    try:
        net.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} does not fit its own configuration: {reason}") from None
