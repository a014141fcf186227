"""The C++ batch norm with addition and ReLU against PyTorch in double precision, and itself."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from reslab.kernels.build import Kernels
from reslab.kernels.norms import add_and_normalise

# [B, C, H, W]: rows that fill no chunk, several chunks, and more channels than pixels
SHAPES = [(3, 16, 5, 7), (5, 48, 60, 61), (2, 1024, 2, 1)]


@dataclass
class Case:
    """A norm with its input, residual and output gradient."""

    norm: nn.BatchNorm2d
    z: Tensor
    residual: Tensor | None
    gradient: Tensor
    relu: bool

    def results(self, y: Tensor) -> dict[str, Tensor]:
        """Return the output and all gradients and statistics."""
        y.backward(self.gradient.to(y.dtype))
        norm = self.norm
        assert self.z.grad is not None
        named = {
            "y": y.detach(), "z": self.z.grad, "mean": norm.running_mean,
            "variance": norm.running_var, "gamma": norm.weight.grad, "beta": norm.bias.grad,
            "residual": None if self.residual is None else self.residual.grad,
        }  # fmt: skip
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def ours(self, kernels: Kernels) -> dict[str, Tensor]:
        y = add_and_normalise(kernels, self.norm, self.z, self.residual, relu=self.relu)
        return self.results(y)

    def torchs(self) -> dict[str, Tensor]:
        y = self.norm(self.z)
        if self.residual is not None:
            y = y + self.residual
        return self.results(y.relu() if self.relu else y)


def case(
    shape: tuple[int, int, int, int], *, residual: bool = False, relu: bool = True,
    training: bool = True, dtype: torch.dtype = torch.float32,
) -> Case:  # fmt: skip
    rng = torch.Generator().manual_seed(1)

    def drawn(shift: float = 0.0) -> Tensor:
        numbers = torch.randn(shape, generator=rng) * 2 + shift
        numbers = numbers.to(dtype).contiguous(memory_format=torch.channels_last)
        return numbers.requires_grad_()

    norm = nn.BatchNorm2d(shape[1])
    norm.weight.data.uniform_(-1.5, 1.5, generator=rng)
    norm.bias.data.normal_(0, 1, generator=rng)
    if not training:
        assert norm.running_mean is not None
        norm.running_mean.fill_(20)
        norm.eval().requires_grad_(False)
    # a mean far from 0, where E[z^2] - E[z]^2 loses digits
    return Case(norm, drawn(30), drawn() if residual else None, drawn().detach(), relu)


def in_double(some: Case) -> Case:
    """Return a copy of a case in double precision."""

    def doubled(x: Tensor) -> Tensor:
        return x.detach().double().requires_grad_()

    residual = None if some.residual is None else doubled(some.residual)
    norm = copy.deepcopy(some.norm).double()
    return Case(norm, doubled(some.z), residual, some.gradient.double(), some.relu)


def must_agree(ours: dict[str, Tensor], exact: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == exact.keys()
    for name, expected in exact.items():
        error = (ours[name].double() - expected).norm() / expected.norm()
        assert error < tolerance, (name, error)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("residual", "relu"), [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_operation_of_pytorch(
    kernels: Kernels,
    shape: tuple[int, int, int, int],
    residual: bool,
    relu: bool,
    training: bool,
) -> None:
    some = case(shape, residual=residual, relu=relu, training=training, dtype=kernels.dtype)
    exact = in_double(some)
    tolerance = 5e-3 if kernels.dtype == torch.bfloat16 else 1e-5
    must_agree(some.ours(kernels), exact.torchs(), tolerance)
    assert some.norm.num_batches_tracked == exact.norm.num_batches_tracked


@pytest.mark.parametrize("residual", [True, False])
def test_threads_change_no_bit(kernels: Kernels, residual: bool) -> None:
    expected = case(SHAPES[1], residual=residual, dtype=kernels.dtype).ours(kernels)
    torch.set_num_threads(3)
    try:
        again = case(SHAPES[1], residual=residual, dtype=kernels.dtype).ours(kernels)
    finally:
        torch.set_num_threads(1)
    for name, tensor in expected.items():
        assert torch.equal(again[name], tensor), name


def test_channels_first_gradients_are_understood(kernels: Kernels) -> None:
    some, other = (case(SHAPES[0], residual=True, dtype=kernels.dtype) for _ in range(2))
    other.gradient = other.gradient.contiguous(memory_format=torch.contiguous_format)
    expected = some.ours(kernels)
    for name, tensor in other.ours(kernels).items():
        assert torch.equal(tensor, expected[name]), name


def test_statistics_that_are_not_tracked_stay(kernels: Kernels) -> None:
    """Activations that are computed again in the backward pass are not tracked."""
    some = case(SHAPES[0], dtype=kernels.dtype)
    expected = case(SHAPES[0], dtype=kernels.dtype).ours(kernels)
    some.norm.track_running_stats = False
    ours = some.ours(kernels)
    assert torch.equal(ours["y"], expected["y"])
    assert not ours["mean"].any()
    assert some.norm.num_batches_tracked == 0


def test_a_single_value_has_no_statistics(kernels: Kernels) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        case((1, 16, 1, 1), dtype=kernels.dtype).ours(kernels)


def test_nan_is_not_hidden(kernels: Kernels) -> None:
    some = case(SHAPES[0], dtype=kernels.dtype)
    some.z.data[1, 3, 2, 2] = torch.nan
    y = add_and_normalise(kernels, some.norm, some.z, None, relu=True)
    assert y[:, 3].isnan().all()
    assert not y[:, 4].isnan().any()
