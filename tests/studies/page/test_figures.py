import pytest

from reslab.studies.page.figures import highest_settled
from reslab.studies.records import group_by_recipe


def test_the_error_axis_shows_all_of_the_later_training(degradation) -> None:
    groups = group_by_recipe(degradation)
    # training error of plain-56 at 40 % of its iterations, 25 + 50 / 4, plus 15 %
    assert highest_settled(groups) == pytest.approx(1.15 * (25 + 12.5))
