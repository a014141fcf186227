"""Runtimes that apply a trained network, each as its users call it: torch's own and others.

A runtime that is not installed, or has no compiler, is None.
"""

import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reslab.models.layers import channels_last

Forward = Callable[[Tensor], Tensor]  # fp32 [B, 3, H, W] -> logits [B, classes]


def with_version(title: str, package: str) -> str:
    """Return the title of a runtime with the version that is installed, if any."""
    return f"{title} {version(package)}" if find_spec(package) else title


def autocast_bf16(net: nn.Module) -> Forward:
    """Apply a network in channels last, with autocast in bf16."""
    net = channels_last(net)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net(x).float()

    return forward


def compiled(net: nn.Module, example: Tensor) -> Forward | None:
    """Compile a network with torch.compile; its weights are frozen."""
    import torch._inductor.config as inductor
    from torch._inductor.exc import InvalidCxxCompiler

    inductor.freezing = True  # folds batch norm, and lays weights out for the kernels
    forward = torch.compile(channels_last(net))
    try:
        forward(example)
    except InvalidCxxCompiler:
        return None
    return forward


def onnx_runtime(net: nn.Module, example: Tensor) -> Forward | None:
    """Export a network for ONNX Runtime, with as many threads as torch."""
    if not find_spec("onnxruntime") or not find_spec("onnx"):
        return None
    import onnxruntime  # pyrefly: ignore[missing-import]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # spinning threads would slow down the next peer's turn
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        with warnings.catch_warnings(action="ignore"):  # torch's new exporter needs onnxscript
            torch.onnx.export(net, (example,), file, dynamo=False)
        session = onnxruntime.InferenceSession(file, options)
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def openvino(net: nn.Module, example: Tensor, precision: str) -> Forward | None:
    """Convert a network for OpenVINO, with as many threads as torch, in "f32" or "bf16"."""
    if not find_spec("openvino"):
        return None
    import openvino  # pyrefly: ignore[missing-import]

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.convert_model(net, example_input=example, input=[list(example.shape)])
    network = openvino.compile_model(model, "CPU", settings)
    return lambda x: torch.from_numpy(np.array(network(x.numpy())[0]))
