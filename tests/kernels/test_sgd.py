"""The step of SGD in C++ against torch's fused kernel, bit by bit."""

import pytest
import torch

from reslab.kernels.build import Kernels
from reslab.kernels.sgd import SgdTensors

DECAYS, RATES, MOMENTUM = (1e-4, 0.0, 1e-4), (0.1, 0.1, 0.037), 0.9


@pytest.mark.parametrize("threads", [1, 2])
def test_weights_and_velocities_are_those_of_torch(kernels: Kernels, threads: int) -> None:
    rng = torch.Generator().manual_seed(0)
    shapes = [(16, 16, 3, 3), (64,), (10, 64)]
    weights = [torch.randn(shape, generator=rng) for shape in shapes]
    velocities = [torch.randn(shape, generator=rng) for shape in shapes]
    weights[1][3], velocities[1][4] = -0.0, float("inf")
    expected = [tensor.clone() for tensor in (*weights, *velocities)]
    tensors = SgdTensors(kernels, weights, velocities, DECAYS, MOMENTUM)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(3):
            gradients = [torch.randn(shape, generator=rng) for shape in shapes]
            gradients[1][3] = -0.0
            tensors.step(gradients, RATES)
            for number, gradient in enumerate(gradients):
                torch._fused_sgd_(
                    [expected[number]], [gradient], [expected[3 + number]],
                    weight_decay=DECAYS[number], momentum=MOMENTUM, lr=RATES[number],
                    dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
                    grad_scale=None, found_inf=None,
                )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    for result, judge in zip((*weights, *velocities), expected, strict=True):
        assert torch.equal(result.view(torch.int32), judge.view(torch.int32))


def test_every_thread_treats_denormal_numbers_as_the_calling_one(kernels: Kernels) -> None:
    torch.set_flush_denormal(False)  # the runs of earlier tests have set it
    weights = [torch.zeros(1 << 16) for _ in range(32)]
    velocities = [torch.full_like(weight, 1e-40) for weight in weights]
    gradients = [torch.zeros_like(weight) for weight in weights]
    tensors = SgdTensors(kernels, weights, velocities, [0.0] * 32, MOMENTUM)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        tensors.step(gradients, [0.1] * 32)
        assert all(velocity.view(torch.int32).all() for velocity in velocities)
        torch.set_flush_denormal(True)
        tensors.step(gradients, [0.1] * 32)
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
    assert not any(velocity.view(torch.int32).any() for velocity in velocities)
