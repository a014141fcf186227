import torch
from torch import nn

from reslab.models.batchnorm import recompute_statistics
from reslab.models.resnet import build_resnet, cifar


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
    net = build_resnet(cifar(8), rng)
    before = [weight.clone() for weight in net.parameters()]
    recompute_statistics(net, (net(torch.randn(4, 3, 16, 16, generator=rng)) for _ in range(2)))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
