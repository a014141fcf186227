from math import log

import pytest
import torch
from torch import Tensor

from reslab.detection.network import AnchorPredictions
from reslab.detection.targets import AnchorTargets, RegionTargets
from reslab.detection.task import proposal_loss, region_loss

NOWHERE = torch.zeros(0, dtype=torch.int64)


def predictions_of(logits: list[float], deltas: list[list[float]]) -> AnchorPredictions:
    return AnchorPredictions(
        torch.zeros(len(logits), 4), torch.tensor(logits), torch.tensor(deltas)
    )


def smooth_l1(difference: float, sigma: float) -> float:
    """The released code's layer, smooth_L1_loss_layer.cu, value by value."""
    away = abs(difference)
    if away < 1 / sigma**2:
        return 0.5 * sigma**2 * away**2
    return away - 0.5 / sigma**2


def test_proposals_by_hand() -> None:
    """Two of four anchors are sampled: an object with logit 0, background with logit log 3."""
    predictions = predictions_of(
        [9.0, log(3), 0.0, 9.0],
        [[9.0] * 4, [9.0] * 4, [0.1, 0.0, 0.5, -1.0], [9.0] * 4],
    )
    targets = AnchorTargets(torch.tensor([2, 1]), torch.tensor([[0.0, 0, 0.25, 0.0]]))
    # -log 1/2; -log(1 - 3/4); box losses 4.5 * 0.01, 0, 0.25 - 1/18, 1 - 1/18
    expected = (log(2) + log(4) + 0.045 + 0.25 - 1 / 18 + 1 - 1 / 18) / 2
    assert proposal_loss(predictions, targets).item() == pytest.approx(expected, rel=1e-6)


def test_regions_by_hand() -> None:
    """A foreground region of class 1 of two, and a background region."""
    scores = torch.tensor([[0.0, 0, log(2)], [0, log(3), 0]])
    deltas = torch.full((2, 2, 4), 9.0)
    deltas[0, 1] = torch.tensor([0.5, 0.0, 3.0, -1.0])
    targets = RegionTargets(torch.zeros(2, 4), torch.tensor([2, 0]), torch.tensor([[0.0, 0, 1, 0]]))
    # -log 2/4; -log 1/5; box losses 0.125, 0, 2 - 0.5, 1 - 0.5
    expected = (log(2) + log(5) + 0.125 + 1.5 + 0.5) / 2
    assert region_loss(scores, deltas, targets).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("away", [0.0, 0.05, -0.11, 1 / 9, 0.12, -0.9, 1.0, -1.5, 40.0])
def test_sigma_is_three_for_proposals_and_one_for_regions(away: float) -> None:
    predictions = predictions_of([-99.0], [[away, 0, 0, 0]])
    alone = AnchorTargets(torch.tensor([0]), torch.zeros(1, 4))
    object_ = 99.0  # -log sigmoid(-99)
    value = proposal_loss(predictions, alone).item() - object_
    assert value == pytest.approx(smooth_l1(away, 3), abs=2e-5)
    targets = RegionTargets(torch.zeros(1, 4), torch.tensor([1]), torch.zeros(1, 4))
    deltas = torch.tensor([[[0, 0, away, 0]]])
    value = region_loss(torch.tensor([[-99.0, 99]]), deltas, targets).item()
    assert value == pytest.approx(smooth_l1(away, 1), abs=1e-6)


def random(*shape: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def slow_region_loss(scores: Tensor, deltas: Tensor, targets: RegionTargets) -> float:
    """Sum the loss region by region, without a box loss for background."""
    total = 0.0
    for at, label in enumerate(targets.labels.tolist()):
        total -= scores[at].softmax(0)[label].log().item()
        if label:
            differences = deltas[at, label - 1] - targets.deltas[at]
            total += sum(smooth_l1(value, 1) for value in differences.tolist())
    return total / len(targets.labels)


@pytest.mark.parametrize("seed", range(3))
def test_both_losses_and_their_gradients_in_float64(seed: int) -> None:
    targets = RegionTargets(
        torch.zeros(6, 4), torch.tensor([3, 1, 1, 0, 0, 0]), random(3, 4, seed=seed)
    )
    scores, deltas = random(6, 4, seed=seed + 10), random(6, 3, 4, seed=seed + 20) * 2
    value = region_loss(scores, deltas, targets).item()
    assert value == pytest.approx(slow_region_loss(scores, deltas, targets), rel=1e-12)
    both = scores.requires_grad_(), deltas.requires_grad_()
    assert torch.autograd.gradcheck(lambda one, two: region_loss(one, two, targets), both)
    region_loss(scores, deltas, targets).backward()
    assert deltas.grad is not None
    trained = deltas.grad.abs().sum(2) > 0
    # only the deltas for the region's class
    assert trained.nonzero().tolist() == [[0, 2], [1, 0], [2, 0]]

    sampled = AnchorTargets(torch.tensor([4, 1, 2, 0]), random(2, 4, seed=seed + 30))
    logits, shifts = random(5, seed=seed + 40), random(5, 4, seed=seed + 50)

    def loss(logits: Tensor, shifts: Tensor) -> Tensor:
        return proposal_loss(AnchorPredictions(torch.zeros(5, 4), logits, shifts), sampled)

    slow = 0.0
    for order, (anchor, object_) in enumerate(((4, True), (1, True), (2, False), (0, False))):
        probability = logits[anchor].sigmoid().item()
        slow -= log(probability if object_ else 1 - probability)
        if object_:
            differences = (shifts[anchor] - sampled.deltas[order]).tolist()
            slow += sum(smooth_l1(difference, 3) for difference in differences)
    assert loss(logits, shifts).item() == pytest.approx(slow / 4, rel=1e-12)
    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(), shifts.requires_grad_()))
    loss(logits, shifts).backward()
    assert logits.grad is not None
    assert shifts.grad is not None
    assert logits.grad.nonzero()[:, 0].tolist() == [0, 1, 2, 4]
    assert shifts.grad.abs().sum(1).nonzero()[:, 0].tolist() == [1, 4]


def test_background_alone_has_no_box_loss() -> None:
    predictions = predictions_of([0.0, 0.0], [[5.0] * 4] * 2)
    background = AnchorTargets(torch.tensor([0, 1]), torch.zeros(0, 4))
    assert proposal_loss(predictions, background).item() == pytest.approx(log(2))
    targets = RegionTargets(torch.zeros(2, 4), torch.tensor([0, 0]), torch.zeros(0, 4))
    value = region_loss(torch.zeros(2, 3), torch.full((2, 2, 4), 5.0), targets)
    assert value.item() == pytest.approx(log(3))


def test_nothing_sampled_is_zero_and_has_a_gradient_of_zero() -> None:
    logits, deltas = torch.zeros(3, requires_grad=True), torch.ones(3, 4, requires_grad=True)
    nothing = AnchorTargets(NOWHERE, torch.zeros(0, 4))
    loss = proposal_loss(AnchorPredictions(torch.zeros(3, 4), logits, deltas), nothing)
    scores, shifts = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 3, 4, requires_grad=True)
    none = RegionTargets(torch.zeros(0, 4), NOWHERE, torch.zeros(0, 4))
    regions = region_loss(scores, shifts, none)
    assert (loss.item(), regions.item()) == (0, 0)
    (loss + regions).backward()
    assert logits.grad is not None
    assert not logits.grad.any()
    assert deltas.grad is not None
    assert not deltas.grad.any()
