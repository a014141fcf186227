import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from tests.models.kinds import KINDS, perturbed
from torch import Tensor, nn

from reslab.evaluation import fuse
from reslab.evaluation.fuse import FusedBlock, model_for_inference, net_for_inference
from reslab.kernels.inference import can_fuse
from reslab.models.batchnorm import in_bf16, norms_of
from reslab.models.config import config_named
from reslab.models.model_file import Model
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import Block, ResNet

NAMES = ("plain20", "resnet20", "resnet20-B", "resnet20-C", "resnet18", "resnet50", "resnet50-3x3")
FUSES = can_fuse(torch.float32, torch.device("cpu"))


def shallow(name: str) -> ResNet:
    """Return a net of the catalogue with one or two blocks per stage."""
    config = config_named(name)
    shape = {"blocks": tuple(min(count, 2) for count in config.blocks), "classes": 10}
    return perturbed(config.model_copy(update=shape))


def images_for(net: ResNet, count: int = 4) -> Tensor:
    side = 24 if net.config.stem == "cifar" else 96
    rng = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, side, side + 3, generator=rng)


def deviation(net: Callable[[Tensor], Tensor], exact: Tensor, images: Tensor) -> float:
    return (net(images).double() - exact).abs().max().item()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_are_as_close_to_float64_as_without_fusion(name: str) -> None:
    net = shallow(name)
    images = images_for(net)
    exact = copy.deepcopy(net).double()(images.double())
    fast = net_for_inference(net)
    assert deviation(fast, exact, images) <= deviation(net, exact, images) + 1e-5
    assert not norms_of(fast)
    assert sum(isinstance(module, Block) for module in fast.modules()) == 0 or not FUSES


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_kind_of_net_computes_the_same(kind: str) -> None:
    net = perturbed(KINDS[kind])
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    exact = copy.deepcopy(net).double()(images.double())
    fast = net_for_inference(net)
    assert deviation(fast, exact, images) <= deviation(net, exact, images) + 1e-5
    groups = sum(isinstance(module, nn.GroupNorm) for module in net.modules())
    assert sum(isinstance(module, nn.GroupNorm) for module in fast.modules()) == groups


@torch.no_grad()
def test_batch_norm_is_folded_where_nothing_can_be_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse, "can_fuse", lambda dtype, device: False)
    net = shallow("resnet20-B")
    images = images_for(net)
    exact = copy.deepcopy(net).double()(images.double())
    folded = net_for_inference(net)
    assert deviation(folded, exact, images) <= deviation(net, exact, images) + 1e-5
    assert not norms_of(folded)
    assert not any(isinstance(module, FusedBlock) for module in folded.modules())


@torch.no_grad()
def test_neither_the_net_nor_the_images_are_changed() -> None:
    net = shallow("resnet20")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    images = images_for(net)
    given = images.clone()
    fast = net_for_inference(net)
    first = fast(images)
    assert torch.equal(fast(images), first)
    assert torch.equal(images, given)
    after = net.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@torch.no_grad()
def test_images_of_changing_sizes_and_numbers_and_any_memory_format() -> None:
    """The layout of the weights follows the images; the logits do not depend on it."""
    net = shallow("resnet50")
    fast = net_for_inference(net)
    rng = torch.Generator().manual_seed(2)
    sizes = [(2, 64, 64), (2, 64, 64), (1, 64, 64), (2, 64, 64), (3, 97, 70), (3, 97, 70)]
    for count, height, width in [*sizes, (1, 33, 33), (2, 64, 64)]:
        images = torch.randn(count, 3, height, width, generator=rng)
        for given in (images, images.contiguous(memory_format=torch.channels_last)):
            torch.testing.assert_close(fast(given), net(given), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_fast_net_can_be_prepared_again_copied_and_pickled() -> None:
    net = shallow("resnet20-B")
    images = images_for(net)
    fast = net_for_inference(net)
    expected = [fast(images) for _ in range(3)][-1]
    assert torch.equal(net_for_inference(fast)(images), expected)
    assert torch.equal(copy.deepcopy(fast)(images), expected)
    assert torch.equal(pickle.loads(pickle.dumps(fast))(images), expected)


@torch.no_grad()
def test_fully_convolutional_logits_are_the_same() -> None:
    net = shallow("resnet20")
    model = Model(net, tuple("0123456789"), minus_mean(torch.full((3, 32, 32), 120.0)), {}, [])
    images = torch.randint(0, 256, (2, 3, 48, 40), dtype=torch.uint8)
    fast = model_for_inference(model)
    torch.testing.assert_close(fast.dense(images), model.dense(images), rtol=1e-4, atol=1e-4)
    assert fast.config == model.config


@torch.no_grad()
def test_bf16_is_fused_where_the_processor_has_it() -> None:
    net = shallow("resnet20")
    mean = minus_mean(torch.full((3, 1, 1), 120.0))
    model = in_bf16(Model(net, tuple("0123456789"), mean, {}, []))
    fast = model_for_inference(model)
    fused = any(isinstance(module, FusedBlock) for module in fast.net.modules())
    assert fused == can_fuse(torch.bfloat16, torch.device("cpu"))
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    exact = Model(net, model.classes, mean, {}, [])(images)
    assert (fast(images) - exact).abs().max() < 0.1 * exact.std()
    assert fast.dtype == torch.bfloat16


@torch.no_grad()
def test_a_network_of_the_users_own_stays_as_it_is() -> None:
    class Doubled(ResNet):
        def forward(self, images: Tensor) -> Tensor:
            return 2 * super().forward(images)

    mean = minus_mean(torch.zeros(3, 1, 1))
    for net, own_net in ((Doubled(KINDS["batch norm"]), None), (ResNet(KINDS["dropout"]), "own")):
        model = Model(net, ("a", "b", "c"), mean, {}, [], own_net=own_net)
        assert model_for_inference(model) is model
