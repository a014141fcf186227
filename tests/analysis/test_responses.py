import pytest
import torch
from tests.models.kinds import KINDS, perturbed
from torch import Tensor, nn

from reslab.analysis.responses import layer_responses, standard_deviation
from reslab.data.datasets import ImagesInMemory
from reslab.models.config import cifar_config, imagenet_config
from reslab.models.layers import ConvBN
from reslab.models.model_file import Model
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import Block, build_resnet


def image_set(count: int, side: int = 16) -> ImagesInMemory:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=rng)
    return ImagesInMemory("test", images, torch.zeros(count, dtype=torch.int64), ("a", "b"))


def random_model(config) -> Model:
    net = build_resnet(config, torch.Generator().manual_seed(1)).eval()
    return Model(net, ("a", "b"), minus_mean(torch.zeros(3, 1, 1)), {}, [])


def test_responses_are_measured_after_batch_norm_and_before_relu_and_addition() -> None:
    """The response of a block's second layer, computed from the block's input."""
    model = random_model(cifar_config(8, classes=2))
    images = image_set(300)  # more than one batch
    block = model.net.get_submodule("stages.0.0")
    assert isinstance(block, Block)
    with torch.no_grad():
        x = model.resnet.stem(images.images.float())
        expected = block.body(x)
    stds = layer_responses(model, images)
    assert stds["stages.0.0.body.2"] == pytest.approx(expected.std(unbiased=False).item(), rel=1e-4)
    assert expected.min() < 0  # it is before ReLU


def test_every_3x3_layer_is_measured_once_in_order() -> None:
    model = random_model(cifar_config(20, "B", classes=2))
    layers = list(layer_responses(model, image_set(4)))
    assert len(layers) == 19  # 20 layers less the classifier; projections are 1x1
    assert layers[0] == "stem.0"
    assert layers[-1] == "stages.2.2.body.2"


def test_only_the_3x3_of_a_bottleneck_is_measured() -> None:
    model = random_model(imagenet_config(50, classes=2))
    responses = layer_responses(model, image_set(2, 128))
    assert len(responses) == 16
    layers = dict(model.net.named_modules())
    for name in responses:
        layer = layers[name]
        assert isinstance(layer, ConvBN)
        assert layer.conv.kernel_size == (3, 3)


def test_hooks_are_removed() -> None:
    model = random_model(cifar_config(8, classes=2))
    layer_responses(model, image_set(2))
    assert not any(m._forward_hooks for m in model.net.modules() if isinstance(m, nn.Module))


def test_a_standard_deviation_by_hand() -> None:
    assert standard_deviation(4, 10, 30) == pytest.approx(1.25**0.5)  # 1 2 3 4
    assert standard_deviation(3, 6, 12) == 0  # 2 2 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_net_has_responses(kind: str) -> None:
    """After the norm, whatever it is, and before noise, dropout and dropped blocks."""
    model = Model(perturbed(KINDS[kind]), ("a", "b", "c"), minus_mean(torch.zeros(3, 1, 1)), {}, [])
    images = image_set(20)
    block = model.net.get_submodule("stages.1.0")
    assert isinstance(block, Block)
    layers = [f"stages.{stage}.0.body.{layer}" for stage in range(3) for layer in (0, 2)]
    responses = layer_responses(model, images)
    assert list(responses) == ["stem.0", *layers]
    with torch.no_grad():
        before = model.net.get_submodule("stages.0")(model.resnet.stem(images.images.float()))
        first = block.body[0](before)
    assert responses["stages.1.0.body.0"] == pytest.approx(first.std(unbiased=False).item(), 1e-4)


class PreActivation(nn.Module):
    """A block of the user's own: plain convolutions with norms before them, one never used."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.projection = nn.Conv2d(5, 5, 1)
        self.inner = ConvBN(5, 4, 3)
        self.unused = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.norm(x).relu())
        return self.inner(self.projection(x).relu()).mean((2, 3))


def test_every_3x3_convolution_of_an_own_network_is_measured() -> None:
    """Against numpy, on the outputs computed here; a norm counts only where it follows."""
    torch.manual_seed(0)
    net = PreActivation().eval()
    nn.init.uniform_(net.inner.conv.weight)
    nn.init.uniform_(net.inner.get_parameter("norm.weight"))
    model = Model(net, ("a", "b"), minus_mean(torch.zeros(3, 1, 1)), {}, [], own_net="own")
    images = image_set(7)
    found = layer_responses(model, images)
    with torch.no_grad():
        first = net.first(net.norm(images.images.float()).relu())
        inner = net.inner(net.projection(first).relu())
    expected = {"first": first.double().numpy().std(), "inner": inner.double().numpy().std()}
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-6)
