"""Models whose networks are computed by a runtime instead of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from reslab.deploy.classifier import logits_graph
from reslab.deploy.metadata import digest_of_weights
from reslab.deploy.runtimes import OnnxRuntime, OpenVino, Runtime
from reslab.errors import unknown_name
from reslab.evaluation.fuse import is_of_blocks
from reslab.models.model_file import Model

BACKENDS: Mapping[str, Callable[[bytes], Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}
NAMES = ("auto", "torch", *BACKENDS)
LEAST = float(np.finfo(np.float32).tiny)  # a probability of 0 in fp32 has no finite logarithm


class NetInRuntime(nn.Module):
    """A network computed by a runtime, from prepared images to logits.

    float [B, 3, H, W] -> float32 [B, classes]
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.runtime = runtime

    def forward(self, images: Tensor) -> Tensor:
        logits = self.runtime(images.float().contiguous().numpy(force=True))
        return torch.from_numpy(logits).to(images.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it has no weights that could be changed


class ExportedNet(nn.Module):
    """An exported file in its runtime, from pixels to the logarithms of the probabilities.

    Pixels are RGB from 0 to 255, [B, 3, H, W] -> float32 [B, classes].
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.runtime = runtime

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        probabilities = torch.from_numpy(self.runtime(pixels.numpy(force=True)))
        return probabilities.clamp_min(LEAST).log().to(images.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def with_backend(model: Model, backend: str) -> Model:
    """Return a model that computes its network with `backend`: auto, torch, onnxruntime, openvino.

    `auto` leaves a model as it is, so it is torch for all but exported files. Raise ValueError if
    the backend is unknown or not installed, or cannot run the model.
    """
    if backend not in NAMES:
        raise ValueError(unknown_name("backend", backend, NAMES))
    if backend in ("auto", model.backend):
        return model
    if model.backend != "torch":
        raise ValueError(
            f"the model runs in {model.backend}: leave out `backend`, or give the run folder or "
            "model file that it was made from"
        )
    if not is_of_blocks(model):
        raise ValueError(
            f"{backend} cannot run a network of your own here: export it with `reslab.export`, "
            "and use the exported file"
        )
    runtime = BACKENDS[backend](logits_graph(model).SerializeToString())
    model = replace(model, folded=True, own_net=digest_of_weights(model))
    return run_by(model, NetInRuntime(runtime), backend)


def run_by(model: Model, net: NetInRuntime | ExportedNet, backend: str) -> Model:
    """Return a model with `net`; its `own_net`, a digest of the weights, is kept beside a title."""
    own_net = f"{net.runtime.title}; {model.own_net}"
    return replace(model, net=net, own_net=own_net, backend=backend)


def runtime_in_bf16(model: Model) -> Model:
    """Return a model in a runtime that computes in bf16; raise ValueError if it cannot."""
    net, digest = model.net, (model.own_net or "").partition("; ")[2]
    assert isinstance(net, NetInRuntime | ExportedNet)
    converted = type(net)(net.runtime.in_bf16())
    return run_by(replace(model, own_net=digest), converted, f"{model.backend}-bf16")
