"""A network in int8 answers almost as in fp32, from a quarter of the bytes."""

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from onnxruntime import InferenceSession
from tests.models.kinds import FIELDS, perturbed

from reslab.deploy.classifier import classifier, crop_classifier
from reslab.deploy.int8 import int8_network
from reslab.deploy.prepare import crop_preparation, image_preparation
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing

WIDE = FIELDS | {"widths": (16, 32, 64), "shortcut": "A"}


@pytest.fixture(scope="module")
def model() -> Model:
    preprocessing = Preprocessing.of([120.0, 110.0, 100.0], [60.0, 61.0, 62.0], size=24, resize=28)
    net = perturbed(ResNetConfig.model_validate(WIDE))
    return Model(net, ("a", "b", "c"), preprocessing, {}, [])


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (20, 3, 24, 24), dtype=torch.uint8, generator=rng)


@pytest.fixture(scope="module")
def network(model: Model, crops: torch.Tensor) -> ModelProto:
    return int8_network(model, list(crops))


def weights(network: ModelProto) -> dict[str, np.ndarray]:
    """Return the int8 weights of convolutions."""
    arrays = {it.name: numpy_helper.to_array(it) for it in network.graph.initializer}
    return {name: values for name, values in arrays.items() if values.ndim == 4}


def run(graph: ModelProto, images: torch.Tensor) -> np.ndarray:
    onnx.checker.check_model(graph, full_check=True)
    session = InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": images.numpy()})[0])


def test_probabilities_are_almost_those_of_fp32(
    model: Model, crops: torch.Tensor, network: ModelProto
) -> None:
    pixels = crops.permute(0, 2, 3, 1).contiguous()
    found = run(classifier(crop_preparation(model), network), pixels)
    expected = run(crop_classifier(model), pixels)
    assert 1e-6 < np.abs(found - expected).max() < 0.1
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.9
    whole = run(classifier(image_preparation(model), network), pixels[:3])  # of any size
    assert whole.shape == (3, 3)


def test_weights_leave_a_bit_to_processors_without_vnni(
    model: Model, crops: torch.Tensor, network: ModelProto
) -> None:
    assert all(values.dtype == np.int8 for values in weights(network).values())
    assert len(weights(network)) == 7
    assert max(np.abs(values.astype(int)).max() for values in weights(network).values()) == 64
    full = weights(int8_network(model, list(crops[:4]), vnni=True))
    assert max(np.abs(values.astype(int)).max() for values in full.values()) == 127


def test_ranges_are_those_of_the_calibration_images(model: Model, crops: torch.Tensor) -> None:
    """Calibrated on black images, the ranges are wrong for others."""
    expected = run(crop_classifier(model), crops.permute(0, 2, 3, 1).contiguous())
    black = int8_network(model, [torch.zeros_like(crops[0])])
    found = run(classifier(crop_preparation(model), black), crops.permute(0, 2, 3, 1).contiguous())
    assert np.abs(found - expected).max() > 0.1
