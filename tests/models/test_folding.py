import pytest
import torch

from reslab.models.batchnorm import fold_batchnorm, in_bf16
from reslab.models.config import config_named
from reslab.models.model_file import Model
from reslab.models.preprocessing import minus_mean
from reslab.models.resnet import ResNet, build_resnet


def with_statistics(name: str) -> ResNet:
    """A net whose batch norms are not the identity."""
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
    assert torch.equal(net(images), before)  # the net itself stays as it was


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
