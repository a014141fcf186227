import pytest

from reslab.studies.page.figures import highest_settled
from reslab.studies.records import group_by_recipe


def test_the_error_axis_shows_all_of_the_later_training(degradation) -> None:
    groups = group_by_recipe(degradation)
    # from 40 % on: 25 + 50 / 4 of the 56-layer plain net's training error, plus 15 %
    assert highest_settled(groups) == pytest.approx(1.15 * (25 + 12.5))
