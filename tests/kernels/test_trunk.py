"""The C++ trunk against PyTorch in double precision, finite differences, and itself."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.kernels.build import Kernels
from reslab.models.config import CIFAR_WIDTHS, ResNetConfig
from reslab.models.layers import channels_last
from reslab.models.parts import Option
from reslab.models.resnet import ResNet, build_resnet
from reslab.training.native import NativeNet, native_net

MOMENTUM = 0.1  # of the nets' norms
OPTIONS: list[Option | None] = [None, "A", "B", "C"]


def small_net(option: Option | None, seed: int) -> ResNet:
    """Build a net of 8 layers in which no channel equals another."""
    config = ResNetConfig(
        stem="cifar", block="basic", blocks=(1, 1, 1), widths=CIFAR_WIDTHS, classes=10,
        shortcut=option,
    )  # fmt: skip
    rng = torch.Generator().manual_seed(seed)
    net = channels_last(build_resnet(config, rng)).train()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.5, 1.5, generator=rng)
            norm.bias.data.normal_(0, 0.2, generator=rng)
    return net


def images_for(side: int, batch: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, side, side, generator=rng)
    return images.contiguous(memory_format=torch.channels_last)


def nearest_to_zero(net: ResNet, images: Tensor) -> float:
    """Return the smallest absolute input of a ReLU: rounding may switch one that is near zero."""
    inputs: list[float] = []
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(lambda _, x: inputs.append(x[0].abs().min().item()))
    with torch.no_grad():
        net(images)
    return min(inputs)


def clear_case(option: Option | None, side: int, batch: int) -> tuple[ResNet, Tensor]:
    """Return a net and images for which no ReLU can be switched by rounding in fp32."""
    for seed in range(100):
        net, images = small_net(option, seed), images_for(side, batch, seed)
        if nearest_to_zero(copy.deepcopy(net).double(), images.double()) > 3e-6:
            return net, images
    raise AssertionError("no case without a ReLU input near zero")


def gradient(net: ResNet | NativeNet, images: Tensor) -> Tensor:
    """Return all gradients of a net's loss as one vector, in double precision."""
    return torch.cat([gradient.flatten() for gradient in gradients(net, images)])


def gradients(net: ResNet | NativeNet, images: Tensor) -> list[Tensor]:
    """Return the gradients of a net's loss, in double precision."""
    weights = list((net.net if isinstance(net, NativeNet) else net).parameters())
    labels = torch.arange(len(images)) % 10
    scores = net(images, MOMENTUM) if isinstance(net, NativeNet) else net(images)
    loss = F.cross_entropy(scores, labels)
    return [gradient.double() for gradient in gradients_of(loss, weights)]


def gradients_of(loss: Tensor, weights: list[nn.Parameter]) -> list[Tensor]:
    """Return the gradients of a loss, and leave none behind."""
    loss.backward()
    gradients = [weight.grad.clone() for weight in weights if weight.grad is not None]
    for weight in weights:
        weight.grad = None
    return gradients


def relative(result: Tensor, expected: Tensor) -> float:
    return ((result - expected).norm() / expected.norm()).item()


def statistics(net: ResNet) -> Tensor:
    """Return the running statistics of all norms; forward passes are not counted."""
    return torch.cat([buffer.double() for buffer in net.buffers() if buffer.ndim])


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(("side", "batch"), [(12, 3), (16, 9), (28, 2)])
def test_gradients_and_statistics_are_those_of_double_precision(
    kernels: Kernels, option: Option | None, side: int, batch: int
) -> None:
    net, images = clear_case(option, side, batch)
    judge = copy.deepcopy(net).double()
    expected = gradients(judge, images.double())
    result = gradients(native_net(net, kernels, side, batch), images)
    rounded = kernels.instructions == "avx512_bf16"
    apart = [relative(ours, exact) for ours, exact in zip(result, expected, strict=True)]
    assert max(apart) < (0.5 if rounded else 1e-5)
    assert relative(statistics(net), statistics(judge)) < (0.01 if rounded else 1e-6)


def test_bf16_is_no_further_from_double_precision_than_autocast(kernels: Kernels) -> None:
    if kernels.instructions != "avx512_bf16":
        pytest.skip("fp32")
    net, images = small_net("A", 0), images_for(16, 32, 0)
    expected = gradient(copy.deepcopy(net).double(), images.double())
    eager = copy.deepcopy(net)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = relative(gradient(eager, images), expected)
    assert relative(gradient(native_net(net, kernels, 16, 32), images), expected) < 1.2 * autocast


def test_the_loss_changes_as_the_gradient_says(kernels: Kernels) -> None:
    """Along the gradient, by central differences, which know nothing of autograd."""
    if kernels.instructions == "avx512_bf16":
        pytest.skip("a loss in bf16 is too coarse for differences")
    net, images = small_net("B", 0), images_for(16, 8, 0)
    native, weights, labels = (
        native_net(net, kernels, 16, 8),
        list(net.parameters()),
        torch.arange(8),
    )
    slopes = gradients_of(F.cross_entropy(native(images, MOMENTUM), labels), weights)
    length = torch.cat([slope.flatten() for slope in slopes]).norm().item()
    losses, step = [], 1e-3
    with torch.no_grad():
        for steps in (1, -2):
            torch._foreach_add_([*weights], slopes, alpha=steps * step / length)
            native.trunk.pack()
            losses.append(F.cross_entropy(native(images, MOMENTUM).double(), labels).item())
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(length, rel=0.01)


def test_gradients_of_successive_passes_are_added(kernels: Kernels) -> None:
    native = native_net(small_net("B", 0), kernels, 16, 9)
    weights = list(native.net.parameters())
    parts = [gradient(native, images_for(16, 9, seed)).float() for seed in (0, 1)]
    for seed in (0, 1):
        F.cross_entropy(native(images_for(16, 9, seed), MOMENTUM), torch.arange(9)).backward()
    total = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
    assert torch.equal(total, parts[0] + parts[1])


def test_bits_do_not_depend_on_the_number_of_threads(kernels: Kernels) -> None:
    results = []
    for threads in (1, 2, 3):
        net = small_net("C", 0)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            native = native_net(net, kernels, 16, 20)
        finally:
            torch.set_num_threads(before)
        results.append(torch.cat([gradient(native, images_for(16, 20, 0)), statistics(net)]))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_bits_do_not_depend_on_earlier_passes(kernels: Kernels) -> None:
    """The memory of a larger batch is reused for a smaller one."""
    fresh, used = small_net("C", 0), small_net("C", 0)
    expected = gradient(native_net(fresh, kernels, 16, 5), images_for(16, 5, 0))
    native = native_net(used, kernels, 16, 20)
    gradient(native, images_for(16, 20, 1))
    assert torch.equal(gradient(native, images_for(16, 5, 0)), expected)


def test_a_nan_is_not_hidden(kernels: Kernels) -> None:
    """ReLU as a maximum with zero would turn it into zero."""
    net, images = small_net("A", 0), images_for(16, 4, 0)
    images[2, 1, 3, 5] = float("nan")
    assert native_net(net, kernels, 16, 4)(images, MOMENTUM).isnan().all()


def test_a_backward_pass_needs_the_activations_of_its_forward_pass(kernels: Kernels) -> None:
    native = native_net(small_net("A", 0), kernels, 12, 2)
    first = native(images_for(12, 2, 0), MOMENTUM)
    native(images_for(12, 2, 1), MOMENTUM)
    with pytest.raises(AssertionError, match="replaced"):
        first.sum().backward()
