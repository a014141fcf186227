import torch
from torch import nn

from reslab.models.batchnorm import norms_of, recompute_statistics, restore_initial_scale
from reslab.models.config import cifar_config
from reslab.models.resnet import build_resnet


def test_statistics_are_the_mean_of_those_of_the_batches() -> None:
    rng = torch.Generator().manual_seed(0)
    batches = [torch.randn(8, 3, 6, 6, generator=rng) * k + k for k in (1.0, 2.0, 5.0)]
    norm = nn.BatchNorm2d(3)
    norm(torch.full((4, 3, 6, 6), 100.0))  # what was averaged before must be forgotten
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
        with torch.no_grad():  # as decay would leave them, were the statistics to follow
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
