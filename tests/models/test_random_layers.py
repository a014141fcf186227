"""Random layers against what their papers say, in closed form."""

import math

import pytest
import torch
from torch import Tensor, nn

from reslab.models.parts import NoisyBatchNorm
from reslab.models.random_layers import (
    ChannelNoise,
    Dropout,
    RandomLayer,
    StochasticDepth,
    draw_numbers,
    kept_values,
    numbers_for,
    random_layers,
    scramble,
    switch_off,
)

NOISE = NoisyBatchNorm()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(layer: RandomLayer, x: Tensor, seed: int = 0) -> Tensor:
    with numbers_for(layer, draw_numbers(layer, len(x), rng(seed))):
        return layer(x)


LAYERS = [StochasticDepth(0.6), Dropout(0.3), ChannelNoise(8, NOISE)]


@pytest.mark.parametrize("layer", LAYERS)
def test_evaluating_is_the_identity_and_needs_no_numbers(layer: RandomLayer) -> None:
    x = torch.randn(4, 8, 3, 3, generator=rng())
    layer.eval()
    assert layer(x) is x
    layer.train()
    with pytest.raises(ValueError, match=r"needs random numbers .* numbers_for\(net, draw_numbers"):
        layer(x)


@pytest.mark.parametrize("layer", LAYERS)
def test_numbers_are_one_row_per_image_and_a_slice_gives_the_part(layer: RandomLayer) -> None:
    x = torch.randn(6, 8, 3, 3, generator=rng())
    (numbers,) = draw_numbers(layer, 6, rng(3))
    assert len(numbers) == 6
    with numbers_for(layer, [numbers]):
        whole = layer(x)
    parts = []
    for part in (slice(0, 2), slice(2, 6)):
        with numbers_for(layer, [numbers[part]]):
            parts.append(layer(x[part]))
    assert torch.equal(torch.cat(parts), whole)
    with numbers_for(layer, [numbers]), pytest.raises(ValueError, match="for 6 images, not for 2"):
        layer(x[:2])


def test_the_numbers_must_be_of_this_net() -> None:
    net = nn.Sequential(Dropout(0.5), nn.Identity(), StochasticDepth(0.5))
    assert random_layers(net) == [net[0], net[2]]
    numbers = draw_numbers(net, 3, rng())
    with (
        pytest.raises(ValueError, match="1 tensors of random numbers for 2 random layers"),
        numbers_for(net, numbers[:1]),
    ):
        pass
    with numbers_for(net, numbers):
        net(torch.zeros(3, 2))
    with pytest.raises(
        ValueError, match="needs random numbers"
    ):  # they are removed after the block
        net(torch.zeros(3, 2))


def test_switched_off_layers_leave_the_rest_in_training_mode() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), Dropout(0.5)).train()
    switch_off(net)
    assert net[0].training
    assert not net[1].training


def test_stochastic_depth_decides_once_per_mini_batch_and_keeps_the_mean() -> None:
    survival, tries = 0.7, 2000
    layer, generator = StochasticDepth(survival), rng()
    decisions = []
    for _ in range(tries):
        kept = layer.draw(5, generator)
        assert len(set(kept.tolist())) == 1
        decisions.append(kept[0].item())
    fraction = sum(decisions) / tries
    assert abs(fraction - survival) < 4 * math.sqrt(survival * (1 - survival) / tries)
    x = torch.randn(4, 3, 2, 2, generator=rng(1))
    with numbers_for(layer, [torch.ones(4)]):
        torch.testing.assert_close(layer(x), x / survival)
    with numbers_for(layer, [torch.zeros(4)]):
        assert not layer(x).any()


def test_a_dropped_block_passes_no_gradient_and_a_kept_one_the_inverse_probability() -> None:
    layer = StochasticDepth(0.5)
    for kept, gradient in ((1.0, 2.0), (0.0, 0.0)):
        x = torch.ones(2, 3, requires_grad=True)
        with numbers_for(layer, [torch.full((2,), kept)]):
            layer(x).sum().backward()
        assert x.grad is not None
        assert (x.grad == gradient).all()


def test_stochastic_depth_is_exact_in_bf16() -> None:
    """The factor 1 / 0.9 itself has no exact bf16; only the product is rounded."""
    x = torch.randn(2, 64, generator=rng()).bfloat16()
    layer = StochasticDepth(0.9)
    with numbers_for(layer, [torch.ones(2)]):
        assert torch.equal(layer(x), (x.double() / 0.9).bfloat16())


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.85])
def test_dropout_drops_its_rate_and_scales_the_rest(rate: float) -> None:
    x = torch.ones(64, 16, 8, 8)
    y = run(Dropout(rate), x)
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / (1 - rate))
    n = x.numel()
    assert abs(kept.double().mean() - (1 - rate)) < 4 * math.sqrt(rate * (1 - rate) / n)


def test_dropouts_mask_depends_on_neither_image_channel_nor_position() -> None:
    """Frequencies along each axis vary as those of independent draws: by chi-squared."""
    rate, shape = 0.3, (256, 16, 6, 6)
    keys = Dropout(rate).draw(shape[0], rng())
    dropped = ~kept_values(keys, torch.empty(shape), rate)
    for axis in range(4):
        other = [it for it in range(4) if it != axis]
        counts = dropped.sum(other).double()
        trials = dropped.numel() / shape[axis]
        chi2 = ((counts - trials * rate) ** 2 / (trials * rate * (1 - rate))).sum()
        freedom = shape[axis]
        assert abs(chi2 - freedom) < 4 * math.sqrt(2 * freedom)


def correlation(first: Tensor, second: Tensor) -> float:
    rows = torch.stack([first.double().flatten(), second.double().flatten()])
    return torch.corrcoef(rows)[0, 1].item()


def test_masks_of_neighbours_images_and_layers_are_independent() -> None:
    keys = Dropout(0.5).draw(129, rng())
    kept = kept_values(keys, torch.empty(129, 16, 8, 8), 0.5)
    bound = 4 / math.sqrt(kept[1:].numel())
    assert abs(correlation(kept[1:], kept[:-1])) < bound
    assert abs(correlation(kept[:, 1:], kept[:, :-1])) < bound
    assert abs(correlation(kept[..., 1:], kept[..., :-1])) < bound
    assert abs(correlation(kept[:, :, 1:], kept[:, :, :-1])) < bound
    # of keys that differ in one bit
    near = kept_values(keys ^ 1, torch.empty(129, 16, 8, 8), 0.5)
    assert abs(correlation(kept, near)) < bound
    net = nn.Sequential(Dropout(0.5), Dropout(0.5))
    first, second = (
        kept_values(it, torch.empty(128, 16, 8, 8), 0.5) for it in draw_numbers(net, 128, rng())
    )
    assert abs(correlation(first, second)) < bound


def test_the_hash_is_that_of_32_bit_machines() -> None:
    def by_hand(number: int) -> int:
        for _ in range(2):
            number = ((number >> 16) ^ number) * 0x45D9F3B % 2**32
        return (number >> 16) ^ number

    numbers = [0, 1, 2, 12345, 2**31 - 1, 2**31, 2**32 - 1]
    assert scramble(torch.tensor(numbers)).tolist() == [by_hand(it) for it in numbers]


def test_dropouts_mask_is_the_same_for_every_memory_format() -> None:
    x = torch.randn(4, 6, 5, 3, generator=rng())
    layer = Dropout(0.5)
    assert torch.equal(run(layer, x), run(layer, x.contiguous(memory_format=torch.channels_last)))
    wide = run(layer, torch.ones(4, 6))  # without spatial dimensions
    assert set(wide.unique().tolist()) == {0.0, 2.0}


def test_noise_scales_and_shifts_each_channel_of_each_image() -> None:
    layer = ChannelNoise(8, NOISE)
    x = torch.randn(4, 8, 3, 3, generator=rng()).double()
    (numbers,) = draw_numbers(layer, 4, rng(2))
    with numbers_for(layer, [numbers]):
        y = layer(x)
    for image in range(4):
        for channel in range(8):
            scale, shift = numbers[image, :, channel].double()
            torch.testing.assert_close(y[image, channel], x[image, channel] * scale + shift)


def test_noise_has_the_papers_distribution() -> None:
    """m ~ U(mu - r, mu + r), mu ~ U(-n, n); s ~ N(sigma, r), sigma ~ U(1, n): means, variances."""
    noise = NoisyBatchNorm(shift=0.6, scale=1.5, shift_spread=0.2, scale_spread=0.3)
    layer, generator = ChannelNoise(500, noise), rng()
    numbers = torch.stack([layer.draw(64, generator) for _ in range(8)]).double()
    scales, shifts = numbers[:, :, 0], numbers[:, :, 1]  # [iterations, images, channels]
    # within an iteration and channel, over images
    torch.testing.assert_close(scales.std(1).mean().item(), 0.3, rtol=0.01, atol=0)
    torch.testing.assert_close(shifts.std(1).mean().item(), 0.2 / math.sqrt(3), rtol=0.01, atol=0)
    spread = (shifts - shifts.mean(1, keepdim=True)).abs().max()
    assert 0.2 < spread < 0.26  # at most 0.2 from mu, plus the error of its estimate
    # between iterations and channels
    sigma, mu = scales.mean(1), shifts.mean(1)
    torch.testing.assert_close(sigma.mean().item(), 1.25, rtol=0.01, atol=0)
    torch.testing.assert_close(mu.mean().item(), 0.0, rtol=0, atol=0.02)
    torch.testing.assert_close(sigma.var().item(), 0.5**2 / 12 + 0.3**2 / 64, rtol=0.05, atol=0)
    torch.testing.assert_close(mu.var().item(), 1.2**2 / 12 + 0.2**2 / 3 / 64, rtol=0.05, atol=0)
    assert mu.abs().max() < 0.7
    assert abs(correlation(sigma, mu)) < 4 / math.sqrt(sigma.numel())
    assert abs(correlation(mu[1:], mu[:-1])) < 4 / math.sqrt(mu[1:].numel())


def test_numbers_depend_on_the_generator_alone() -> None:
    net = nn.Sequential(*LAYERS)
    torch.manual_seed(1)
    first = draw_numbers(net, 5, rng(3))
    torch.manual_seed(2)
    second = draw_numbers(net, 5, rng(3))
    other = draw_numbers(net, 5, rng(4))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[1], other[1])
    assert not torch.equal(first[2], other[2])
