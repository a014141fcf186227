import pytest
import torch
import torch.nn.functional as F

from reslab.models.layers import Conv, ConvBN, ZeroPadding, he_normal
from reslab.runtime.cpu import SWITCHES


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


SMALL = """
import torch
import torch.nn.functional as F
from reslab.models.layers import Conv

rng = torch.Generator().manual_seed(0)
for c_in in (1, 4, 6, 7):
    for _ in range(10):
        conv = Conv(c_in, 8, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
        torch.nn.init.normal_(conv.weight, generator=rng)
        x = torch.randn(8, c_in, 16, 16, generator=rng).to(memory_format=torch.channels_last)
        dy = torch.randn(8, 8, 8, 8, generator=rng).to(memory_format=torch.channels_last)
        exact = x.double().requires_grad_(), conv.weight.detach().double().requires_grad_()
        expected = F.conv2d(*exact, stride=2)
        expected.backward(dy.double())
        y = conv(x.requires_grad_())
        y.backward(dy)
        found = y, x.grad, conv.weight.grad
        for own, right in zip(found, (expected, *(tensor.grad for tensor in exact))):
            torch.testing.assert_close(own.double(), right, rtol=1e-5, atol=1e-4)
print(torch.backends.cpu.get_cpu_capability())
"""


def test_few_channels_at_stride_2_have_right_gradients_on_avx2(start_python) -> None:
    """torch's own kernel corrupts the heap there, so the test runs in its own process."""
    done = start_python(
        "-c", SMALL, **SWITCHES["avx2"]
    ).end()  # the server also ends it if it hangs
    assert (done.returncode, done.stdout) == (0, "AVX2\n"), done.stderr


def pixels_first(conv: Conv, x: torch.Tensor) -> bool:
    """Return whether the pixels were taken before the convolution, judged by its graph."""
    before = conv(x).grad_fn.next_functions[0][0]
    return before is not None and "AvgPool2D" in before.name()


@pytest.mark.parametrize(
    ("conv", "safe"),
    [
        (Conv(7, 8, 1, 2), True),
        (Conv(8, 8, 1, 2), False),
        (Conv(4, 8, 1, 1), False),
        (Conv(4, 8, 3, 2, padding=1), False),
        (Conv(4, 8, 1, 2).double(), False),
        (Conv(4, 8, 1, 2).to(torch.bfloat16), False),
        (Conv(4, 8, 1, 2).to("meta"), False),  # not on the CPU
    ],
)  # fmt: skip
def test_pixels_are_taken_first_only_where_torch_has_the_fault(conv: Conv, safe: bool) -> None:
    x = torch.zeros(2, conv.in_channels, 8, 8, dtype=conv.weight.dtype, device=conv.weight.device)
    assert pixels_first(conv, x.requires_grad_()) == safe


@pytest.mark.parametrize("enabled", [True, False])
def test_autocast_computes_in_bf16_and_needs_no_pixels_first(enabled: bool) -> None:
    x = torch.zeros(2, 4, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        assert pixels_first(Conv(4, 8, 1, 2), x) != enabled


def test_pixels_taken_first_are_those_of_the_stride() -> None:
    rng = torch.Generator().manual_seed(0)
    conv, bias = Conv(4, 6, 1, 2), torch.randn(6, generator=rng)
    conv.bias = torch.nn.Parameter(bias)
    torch.nn.init.normal_(conv.weight, generator=rng)
    for height, width in ((8, 8), (7, 9), (1, 2)):
        x = torch.randn(2, 4, height, width, generator=rng)
        expected = F.conv2d(x.double(), conv.weight.double(), bias.double(), stride=2)
        torch.testing.assert_close(conv(x).double(), expected, rtol=1e-5, atol=1e-5)
