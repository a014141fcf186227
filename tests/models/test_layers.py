import torch

from reslab.models.layers import ConvBN, ZeroPadding, he_normal


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(1.0, torch.Size(shape).numel() + 1).reshape(shape)


def test_option_a_keeps_every_second_pixel_and_adds_zeros_at_the_end() -> None:
    x = numbered(1, 2, 4, 4)
    y = ZeroPadding(2, 4, 2, "end")(x)
    expected = torch.tensor(
        [[[1.0, 3], [9, 11]], [[17, 19], [25, 27]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    )
    assert torch.equal(y[0], expected)


def test_option_a_can_split_its_zeros() -> None:
    x = numbered(1, 2, 2, 2)
    y = ZeroPadding(2, 4, 1, "both")(x)
    assert torch.equal(y[:, 1:3], x)
    assert not y[:, [0, 3]].any()


def test_he_normal_counts_its_fan_over_the_inputs() -> None:
    conv = ConvBN(64, 256, 3).conv
    he_normal(conv, torch.Generator().manual_seed(1))
    expected = (2 / (64 * 9)) ** 0.5
    assert abs(conv.weight.std().item() / expected - 1) < 0.01
    assert abs(conv.weight.mean().item()) < expected / 50
