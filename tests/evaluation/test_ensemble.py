import numpy as np
import pytest
import torch

from reslab.evaluation.report import build_report, score_set
from reslab.evaluation.scoring import Scores, ensemble
from reslab.evaluation.views import OneCrop


def scores(*probabilities: list[float], bad: dict[int, str] | None = None) -> Scores:
    return Scores(torch.tensor(probabilities).log(), bad or {})


def test_the_mean_of_probabilities_by_hand(album) -> None:
    """Two members are wrong about an image each, their mean about none."""
    first = scores([0.7, 0.2, 0.1], [0.45, 0.40, 0.15])
    second = scores([0.4, 0.5, 0.1], [0.10, 0.80, 0.10])
    mean = ensemble([first, second])
    found = mean.log_probabilities.exp().tolist()
    assert found[0] == pytest.approx([0.55, 0.35, 0.10])
    assert found[1] == pytest.approx([0.275, 0.60, 0.125])
    images = album([np.zeros((2, 2, 3), np.uint8)] * 2, [0, 1])
    errors = [build_report(it, images, "").top1_error for it in (first, second, mean)]
    assert errors == [50.0, 50.0, 0.0]


def test_scores_are_not_what_is_averaged() -> None:
    """A member that is sure of itself does not outvote two: their logarithms would."""
    sure, other = scores([1 - 1e-12, 1e-12]), scores([0.3, 0.7])
    assert ensemble([sure, other, other]).log_probabilities.exp()[0].tolist() == pytest.approx(
        [1.6 / 3, 1.4 / 3]
    )


def test_a_member_alone_is_itself(album) -> None:
    images = album([np.full((2, 2, 3), 40, np.uint8)], [0])
    alone = score_set(lambda x: x.float().mean((2, 3)), images, OneCrop())
    assert torch.equal(ensemble([alone]).log_probabilities, alone.log_probabilities)


def test_an_image_that_no_member_saw_is_left_out() -> None:
    nothing = [float("nan")] * 2
    members = [scores([0.5, 0.5], nothing, bad={1: "1.png: damaged"})] * 2
    assert ensemble(members).bad == {1: "1.png: damaged"}
