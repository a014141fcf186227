"""A network in a runtime answers as it does in torch."""

from copy import deepcopy

import pytest
import torch
from openvino import Core
from tests.models.kinds import KINDS, perturbed
from torch import nn

from reslab.deploy import runtimes
from reslab.deploy.backends import NetInRuntime, runtime_in_bf16, with_backend
from reslab.deploy.runtimes import OpenVino
from reslab.evaluation.predict import Predictor
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing

BACKENDS = ["onnxruntime", "openvino"]
CLASSES = ("circle", "cross", "square")


@pytest.fixture(scope="module")
def model() -> Model:
    preprocessing = Preprocessing.of([120.0, 110.0, 100.0], [60.0, 61.0, 62.0], size=24, resize=28)
    return Model(perturbed(KINDS["mixed"]), CLASSES, preprocessing, {}, [])


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (7, 3, 30, 41), dtype=torch.uint8, generator=rng)


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_and_predictions_are_those_of_torch(
    backend: str, model: Model, images: torch.Tensor
) -> None:
    other = with_backend(model, backend)
    for batch in (images, images[:1], images[:2, :, :24, :24]):  # a dynamic batch and size
        torch.testing.assert_close(other(batch), model(batch), atol=1e-4, rtol=1e-4)
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    for protocol in ("one-crop", "ten-crop"):
        expected = Predictor(model).predict(arrays, protocol=protocol)
        found = Predictor(other).predict(arrays, protocol=protocol)
        assert [[it.name for it in row] for row in found] == [
            [it.name for it in row] for row in expected
        ]
        for row, wanted in zip(found, expected, strict=True):
            assert [it.probability for it in row] == pytest.approx(
                [it.probability for it in wanted], abs=1e-5
            )


def test_graphs_are_kept_for_the_shapes_used_last(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "SHAPES_KEPT", 2)
    net = perturbed(KINDS["batch norm"])
    model = Model(net, CLASSES, Preprocessing.of([120.0, 110.0, 100.0]), {}, [])
    other = with_backend(model, "openvino")
    for width in (16, 17, 18, 17, 16):
        batch = images[..., :width]
        torch.testing.assert_close(other(batch), model(batch), atol=1e-4, rtol=1e-4)
    assert isinstance(other.net, NetInRuntime)
    assert isinstance(other.net.runtime, OpenVino)
    assert [shape[3] for shape in other.net.runtime.requests] == [17, 16]


def test_torch_and_auto_change_nothing(model: Model) -> None:
    assert with_backend(model, "auto") is model
    assert with_backend(model, "torch") is model
    other = with_backend(model, "onnxruntime")
    assert with_backend(other, "auto") is other
    assert with_backend(other, "onnxruntime") is other
    assert deepcopy(other.net) is other.net


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_runtime_cannot_do_is_refused(backend: str, model: Model) -> None:
    other = with_backend(model, backend)
    with pytest.raises(ValueError, match=f"{backend} computes the network with its pooling"):
        Predictor(other).predict(torch.zeros(60, 60, 3).byte().numpy(), protocol="multi-scale:32")
    with pytest.raises(ValueError, match=f"the model runs in {backend}: leave out `backend`"):
        with_backend(other, "torch")
    own = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="a network of your own here: export it"):
        with_backend(
            Model(own, CLASSES, model.preprocessing, {}, [], own_net="Sequential"), backend
        )
    with pytest.raises(ValueError, match="no backend 'onnx'; did you mean 'onnxruntime'"):
        with_backend(model, "onnx")


def test_bf16_is_rounded_or_refused(model: Model, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="bf16 needs the backend torch or openvino"):
        runtime_in_bf16(with_backend(model, "onnxruntime"))
    exact = with_backend(model, "openvino")
    if "BF16" not in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ValueError, match="no bf16 arithmetic"):
            runtime_in_bf16(exact)
        return
    rounded = runtime_in_bf16(exact)
    assert rounded.backend == "openvino-bf16"
    assert rounded.own_net != exact.own_net
    difference = (rounded(images) - model(images)).abs().max()
    assert 1e-4 < difference < 0.3
