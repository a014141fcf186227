"""The Triton kernels, interpreted on the CPU, against PyTorch in double precision."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.kernels.test_trunk import small_net
from torch import Tensor

from reslab.data.batch_augment import pad_and_crop
from reslab.models.batchnorm import norms_of
from reslab.models.parts import Option
from reslab.models.resnet import ResNet
from reslab.training.native import trunk_layers

pytest.importorskip("triton", reason="it is not available for this system")

from reslab.kernels.gpu.plan import Split, split
from reslab.kernels.gpu.step import GpuStep

SHARES, SHARE, PAD = 2, 2, 4


class Case:
    """A net, a set of images and a mini-batch of it, computed by the kernels."""

    def __init__(self, option: Option | None, side: int, *, crop: bool = True) -> None:
        rng = torch.Generator().manual_seed(side)
        self.net = small_net(option, seed=side)
        self.images = torch.randn(6, 3, side, side, generator=rng)
        self.labels = torch.randint(0, 10, (6,), generator=rng)
        self.indices = torch.randint(0, 6, (SHARES * SHARE,), generator=rng)
        count = (2, SHARES * SHARE)
        offsets = torch.randint(0, 2 * PAD + 1, count, generator=rng).T
        flips = torch.rand(SHARES * SHARE, generator=rng) < 0.5
        self.offsets, self.flips = (offsets, flips) if crop else (None, None)
        padded = torch.zeros(6, side, side, 4)
        padded[..., :3] = self.images.permute(0, 2, 3, 1)
        self.step = GpuStep(
            trunk_layers(self.net), self.net.fc.weight, self.net.fc.bias, padded, self.labels,
            shares=SHARES, share=SHARE, pad=PAD,
        )  # fmt: skip
        self.run()

    def run(self) -> None:
        self.step.forward(self.indices, self.offsets, self.flips)
        self.step.backward()

    def batch(self) -> Tensor:
        images = self.images[self.indices]
        return (
            images if self.offsets is None else pad_and_crop(images, PAD, self.offsets, self.flips)
        )


def reference(case: Case) -> tuple[ResNet, Tensor, Tensor]:
    """Return a net with its gradients in float64, the images' losses, the shares' statistics."""
    net = copy.deepcopy(case.net).double()
    losses, rows = [], []
    for norm in norms_of(net):
        norm.momentum = 1.0
    labels = case.labels[case.indices]
    for images, wanted in zip(
        case.batch().double().chunk(SHARES), labels.chunk(SHARES), strict=True
    ):
        losses.append(F.cross_entropy(net(images), wanted, reduction="none"))
        pairs = [(norm.running_mean, norm.running_var) for norm in norms_of(net)]
        rows.append(torch.cat([value for pair in pairs for value in pair if value is not None]))
    torch.cat(losses).mean().backward()
    return net, torch.cat(losses).detach(), torch.stack(rows)


@pytest.mark.parametrize(("option", "side"), [(None, 8), ("A", 8), ("A", 9)])
def test_losses_statistics_and_gradients_are_those_of_the_net(
    option: Option | None, side: int
) -> None:
    case = Case(option, side)
    net, losses, statistics = reference(case)
    step = case.step
    assert torch.equal(step.input[..., :3].permute(0, 3, 1, 2), case.batch())
    torch.testing.assert_close(step.losses.double(), losses, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(step.unbiased_statistics(), statistics, rtol=1e-4, atol=1e-5)
    gradients = {id(weight): gradient for weight, gradient in step.gradients()}
    exact = dict(net.named_parameters())
    assert len(gradients) == len(exact)
    for name, weight in case.net.named_parameters():
        gradient, wanted = gradients[id(weight)], exact[name].grad
        assert wanted is not None
        assert gradient.stride() == weight.stride()
        assert (gradient - wanted).norm() <= 1e-5 * wanted.norm(), name


def test_images_need_not_be_augmented() -> None:
    case = Case(None, 8, crop=False)
    assert torch.equal(case.step.input[..., :3].permute(0, 3, 1, 2), case.images[case.indices])
    assert not case.step.input[..., 3].any()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the last score is not a number
def test_errors_count_labels_that_are_not_first() -> None:
    """Ties go to the lower class; scores that are not numbers are errors."""
    case = Case(None, 8)
    step, labels = case.step, case.labels[case.indices]
    with torch.no_grad():
        case.net.fc.weight.zero_()
        case.net.fc.bias.zero_()
        step.forward(case.indices, case.offsets, case.flips)
        assert torch.equal(step.errors, (labels != 0).float())
        case.net.fc.bias[int(labels[0])] = 1
        step.forward(case.indices, case.offsets, case.flips)
        assert torch.equal(step.errors, (labels != labels[0]).float())
        case.net.fc.bias.fill_(float("nan"))
        step.forward(case.indices, case.offsets, case.flips)
        assert step.errors.all()


def test_a_split_covers_all_rows_with_few_parts() -> None:
    for rows in (1, 63, 64, 65, 1000, 65_536):
        for most in (1, 7, 128):
            found = split(rows, 64, most)
            assert found.parts <= most
            assert found.rows * (found.parts - 1) < rows <= found.rows * found.parts
    assert split(65_536, 128, 128) == Split(128, 4, 128)
