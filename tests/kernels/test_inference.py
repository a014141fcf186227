import pytest
import torch
from torch import Tensor, nn

from reslab.kernels.inference import FusedConv, can_fuse

pytestmark = pytest.mark.skipif(
    not can_fuse(torch.float32, torch.device("cpu")), reason="this torch lacks the operators"
)
CL = torch.channels_last


def example(kernel: int, stride: int, c_in: int = 6, c_out: int = 10) -> nn.Conv2d:
    torch.manual_seed(kernel + stride)
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)


def exact(conv: nn.Conv2d, x: Tensor) -> Tensor:
    weight, bias = conv.weight.double(), conv.bias
    assert bias is not None
    return torch.conv2d(x.double(), weight, bias.double(), conv.stride, conv.padding)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@torch.no_grad()
def test_outputs_are_those_of_the_convolution_in_float64(kernel: int, stride: int) -> None:
    conv = example(kernel, stride)
    plain, with_relu = FusedConv(conv, relu=False), FusedConv(conv, relu=True)
    for shape in ((2, 6, 9, 12), (2, 6, 9, 12), (1, 6, 1, 1), (5, 6, 7, 7), (0, 6, 7, 7)):
        for x in (torch.randn(shape), torch.randn(shape).contiguous(memory_format=CL)):
            expected = exact(conv, x)
            torch.testing.assert_close(plain(x).double(), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(with_relu(x).double(), expected.relu(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_sum_is_written_over_its_second_term_and_nothing_else() -> None:
    conv = example(3, 1)
    fused = FusedConv(conv, relu=False)
    for memory_format in (torch.contiguous_format, CL):
        x = torch.randn(3, 6, 8, 8).contiguous(memory_format=memory_format)
        total = torch.randn(3, 10, 8, 8).contiguous(memory_format=memory_format)
        given, expected = x.clone(), (exact(conv, x) + total).relu()
        result = fused.add_relu_(x, total)
        torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-5)
        assert result.data_ptr() == total.data_ptr()
        assert torch.equal(x, given)


@torch.no_grad()
def test_weights_are_packed_for_a_shape_that_comes_twice() -> None:
    fused = FusedConv(example(3, 1), relu=True)
    large, small = torch.randn(8, 6, 16, 16), torch.randn(3, 6, 16, 16)
    states = []
    for x in (large, large, small, large, large, small, small):
        fused(x)
        states.append(fused.packed_shape)
    assert states == [[], *[[8, 6, 16, 16]] * 5, [3, 6, 16, 16]]


def test_other_types_and_devices_are_not_fused() -> None:
    assert not can_fuse(torch.float64, torch.device("cpu"))
    assert not can_fuse(torch.float32, torch.device("cuda"))
