import pytest
import torch
from tests.models.kinds import KINDS, perturbed
from torch import nn

from reslab.models.batchnorm import (
    fold_batchnorm,
    in_bf16,
    norms_of,
    recompute_statistics,
    restore_initial_scale,
)
from reslab.models.config import cifar_config, config_named
from reslab.models.model_file import Model
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import ResNet, build_resnet


def test_statistics_are_the_mean_of_those_of_the_batches() -> None:
    rng = torch.Generator().manual_seed(0)
    batches = [torch.randn(8, 3, 6, 6, generator=rng) * k + k for k in (1.0, 2.0, 5.0)]
    norm = nn.BatchNorm2d(3)
    norm(torch.full((4, 3, 6, 6), 100.0))  # earlier averages must be discarded
    recompute_statistics(norm, (norm(batch) for batch in batches))
    means = torch.stack([b.mean((0, 2, 3)) for b in batches])
    variances = torch.stack([b.var((0, 2, 3)) for b in batches])
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    torch.testing.assert_close(norm.running_var, variances.mean(0))
    assert norm.momentum == 0.1
    assert not norm.training


def test_weights_stay() -> None:
    rng = torch.Generator().manual_seed(0)
    net = build_resnet(cifar_config(8), rng)
    before = [weight.clone() for weight in net.parameters()]
    recompute_statistics(net, (net(torch.randn(4, 3, 16, 16, generator=rng)) for _ in range(2)))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_the_scale_of_convolutions_is_that_of_the_initialisation_and_the_net_the_same() -> None:
    rng = torch.Generator().manual_seed(0)
    net = build_resnet(cifar_config(8, "B"), rng)
    recompute_statistics(net, (net(torch.randn(4, 3, 16, 16, generator=rng)) for _ in range(2)))
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    for number, (convolution, norm) in enumerate(zip(convolutions, norms_of(net), strict=True)):
        with torch.no_grad():  # as weight decay would, with statistics that follow
            convolution.weight.mul_(0.1 * (number + 1))
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.mul_(0.1 * (number + 1))
            norm.running_var.mul_((0.1 * (number + 1)) ** 2)
    images = torch.randn(2, 3, 16, 16, generator=rng)
    before = net(images)
    restore_initial_scale(net)
    for convolution in convolutions:
        fan = convolution.weight[0].numel()
        torch.testing.assert_close(convolution.weight.std(), torch.tensor((2 / fan) ** 0.5))
    torch.testing.assert_close(net(images), before, rtol=1e-4, atol=1e-5)


def with_statistics(name: str) -> ResNet:
    """Build a net whose batch norms are not the identity."""
    config = config_named(name)
    net = build_resnet(config.model_copy(update={"blocks": tuple(1 for _ in config.blocks)}))
    rng = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.2), (module.running_var, 0.5)):
                assert tensor is not None
                tensor.uniform_(low, low + 0.4, generator=rng)
            torch.nn.init.uniform_(module.weight, 0.3, 0.6, generator=rng)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2, generator=rng)
    return net.eval()


@pytest.mark.parametrize("name", ["resnet20", "resnet20-C", "resnet18", "resnet50-3x3"])
def test_folding_changes_no_score(name: str) -> None:
    net = with_statistics(name).double()
    side = 32 if "20" in name else 128
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    before = net(images)
    after = fold_batchnorm(net)(images)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    assert torch.equal(net(images), before)  # the original net is unchanged


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_net_is_folded_as_far_as_it_has_batch_norm(kind: str) -> None:
    net = perturbed(KINDS[kind]).double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    folded = fold_batchnorm(net)
    torch.testing.assert_close(folded(images), net(images), rtol=1e-9, atol=1e-9)
    assert not norms_of(folded)
    groups = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    assert sum(isinstance(m, nn.GroupNorm) for m in folded.modules()) == len(groups)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_net_computes_in_bf16(kind: str) -> None:
    mean = minus_mean(torch.full((3, 1, 1), 120.0))
    model = Model(perturbed(KINDS[kind]), ("a", "b", "c"), mean, {}, [])
    images = torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8)
    exact, fast = model(images), in_bf16(model)(images)
    assert (fast - exact).abs().max() < 0.1 * exact.std()
    assert not torch.equal(fast, exact)


def test_bf16_scores_are_close_and_come_back_as_fp32() -> None:
    net = with_statistics("resnet20")
    mean = minus_mean(torch.full((3, 32, 32), 120.0))
    model = Model(net, tuple("0123456789"), mean, {}, [])
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    exact, fast = model(images), in_bf16(model)(images)
    assert fast.dtype == torch.float32
    spread = exact.std()
    assert (fast - exact).abs().max() < 0.1 * spread
    assert not torch.equal(fast, exact)
    assert in_bf16(model).dense(images).shape == (16, 10, 1, 1)
