"""The network of an ONNX graph in int8, calibrated on images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from reslab.deploy.backends import NetInRuntime, run_by
from reslab.deploy.classifier import logits_graph
from reslab.deploy.network import PREPARED
from reslab.deploy.packages import must_have
from reslab.deploy.runtimes import OnnxRuntime
from reslab.models.model_file import Model

if TYPE_CHECKING:
    from onnx import ModelProto

CALIBRATION_IMAGES = 64  # as many as fix the ranges of all activations; more change little
BATCH = 8  # images calibrated with at a time
# says to ONNX Runtime that batch norm is folded already, which it would otherwise recommend
PREPROCESSED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def int8_network(model: Model, crops: Sequence[Tensor], *, vnni: bool = False) -> ModelProto:
    """Return the graph of a model's network in int8, from prepared images to logits.

    Weights have a scale per output channel; activations are uint8, with the range that they have
    for the calibration images `crops`, uint8 [3, h, w] of one size. Weights use 7 of their 8 bits,
    because processors without VNNI add products of two bytes in 16 bits, which overflow otherwise;
    with `vnni` they use all 8, for files that stay on processors that have it.
    """
    must_have("onnx", "onnxruntime")
    import onnx
    from onnx import helper
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    network = logits_graph(model)
    helper.set_model_props(network, PREPROCESSED)
    with tempfile.TemporaryDirectory(prefix="reslab-int8-") as folder:
        file = Path(folder) / "int8.onnx"
        quantize_static(
            network,
            str(file),
            Calibration(model, crops),  # pyrefly: ignore[bad-argument-type]
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=not vnni,
        )
        return onnx.load(str(file))


def model_of_network(model: Model, network: ModelProto) -> Model:
    """Return a model whose network is the graph `network`, in ONNX Runtime."""
    runtime = OnnxRuntime(network.SerializeToString())
    return run_by(replace(model, folded=True, own_net="int8"), NetInRuntime(runtime), "onnxruntime")


class Calibration:
    """Prepared images in batches, as ONNX Runtime's calibration reads them."""

    def __init__(self, model: Model, crops: Sequence[Tensor]) -> None:
        self.batches = self._batches(model, crops)

    def _batches(self, model: Model, crops: Sequence[Tensor]) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(crops), BATCH):
            batch = torch.stack(list(crops[start : start + BATCH]))
            yield {PREPARED: model.preprocessing(batch).contiguous().numpy(force=True)}

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)
