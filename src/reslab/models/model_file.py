"""The model file: weights, configuration, classes and preprocessing in one safetensors file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import reslab
from reslab.models.config import ResNetConfig, warn_small_map
from reslab.models.layers import Net, channels_last
from reslab.models.preprocessing import MEAN_NAME, STD_NAME, Preprocessing, pop_preprocessing
from reslab.models.resnet import ResNet
from reslab.runtime.files import TensorFile

REQUIRED = {"config", "classes", "ids", "preprocessing", "recipe", "metrics", "batch_norm_folded"}


@dataclass(frozen=True)
class Model:
    """A trained network with everything needed to use it."""

    net: ResNet
    classes: tuple[str, ...]  # names of the outputs, for display
    preprocessing: Preprocessing
    recipe: dict[str, Any]  # empty for imported weights
    metrics: list[dict[str, Any]]
    ids: tuple[str, ...] = ()  # folder names (ImageNet: wnids); empty: same as classes
    folded: bool = False  # whether batch norm is folded into the convolutions

    def __repr__(self) -> str:
        name = self.recipe.get("name", "weights from elsewhere")
        return f"Model({name!r}, {len(self.classes)} classes)"

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
        """The side of the training images, or None if the file does not state it."""
        side = self.preprocessing.mean.shape[-1]  # 1: a mean colour, which fits every size
        return self.preprocessing.size or (side if side > 1 else None)

    def _prepared(self, images: Tensor) -> Tensor:
        """Preprocess in fp32, then convert to the dtype of the weights."""
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

    Raises ValueError if the file is not a classifier's model file or is damaged, or if its tensors
    are not exactly the weights of the network.
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
    """Return the path of a model file, or of the one in a run folder; ValueError if missing."""
    file = Path(path)
    file = file / "model.safetensors" if file.is_dir() else file
    if not file.exists():
        raise ValueError(f"no model at {file}; give a finished run folder or a model file")
    return file


def read_facts(file: Path) -> dict[str, Any]:
    """Read the facts of a model file, not its weights; ValueError if it is in another format."""
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
    """Load a file's tensors into a network, and return the network ready for inference.

    Raises ValueError if the tensors are not exactly the weights of the network.
    """
    try:
        net.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} does not fit its own configuration: {reason}") from None
    return channels_last(net.eval()).requires_grad_(False)
