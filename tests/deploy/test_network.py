"""The ONNX graph of every kind of network computes the logits of the network."""

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from onnxruntime import InferenceSession
from tests.models.kinds import FIELDS, KINDS, perturbed

from reslab.deploy.network import LOGITS, PREPARED, network_graph
from reslab.models.config import ResNetConfig, config_named

IMAGENET: dict[str, object] = {"stem": "imagenet", "blocks": (1, 1), "widths": (8, 16)}
SHAPES: dict[str, dict[str, object]] = {
    "plain": {"shortcut": None},
    "option A": {"shortcut": "A"},
    "zeros on both sides": {"shortcut": "A", "zeros": "both"},
    "option C": {"shortcut": "C"},
    "bottleneck": {"block": "bottleneck"},
    "stride on 3x3": {"block": "bottleneck", "stride_on": "3x3"},
    "pooling past the edge": IMAGENET,
    "padded pooling": {**IMAGENET, "pool": "padded"},
}
CONFIGS = KINDS | {
    name: ResNetConfig.model_validate(FIELDS | fields) for name, fields in SHAPES.items()
}


def run(graph: ModelProto, images: torch.Tensor) -> torch.Tensor:
    session = InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run([LOGITS], {PREPARED: images.numpy()})
    assert isinstance(logits, np.ndarray)
    return torch.from_numpy(logits)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_graph_computes_the_networks_logits(name: str) -> None:
    net = perturbed(CONFIGS[name])
    graph = network_graph(net)
    onnx.checker.check_model(graph, full_check=True)
    rng = torch.Generator().manual_seed(1)
    for shape in ((2, 3, 32, 32), (1, 3, 33, 47), (3, 3, 30, 21)):  # odd sides too
        images = 60 * torch.randn(shape, generator=rng)
        with torch.no_grad():
            expected = net(images)
        torch.testing.assert_close(run(graph, images), expected, atol=1e-4, rtol=1e-4)


def test_weights_in_bf16_are_exported_in_fp32() -> None:
    net = perturbed(KINDS["batch norm"]).to(torch.bfloat16)
    as_fp32 = perturbed(KINDS["batch norm"])
    as_fp32.load_state_dict(net.state_dict())
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = as_fp32(images)
    torch.testing.assert_close(run(network_graph(net), images), expected, atol=1e-4, rtol=1e-4)


def test_values_have_the_names_of_the_weights() -> None:
    graph = network_graph(perturbed(config_named("resnet20"))).graph
    names = {tensor.name for tensor in graph.initializer}
    assert {"stem.0.weight", "stages.2.1.body.2.weight", "fc.weight", "fc.bias"} <= names
