import pytest

from reslab.studies.page.figures import draw_errors, highest_settled
from reslab.studies.page.tables import label_classifiers
from reslab.studies.records import group_by_recipe


def test_the_error_axis_shows_all_of_the_later_training(degradation) -> None:
    groups = group_by_recipe(degradation)
    # training error of plain-56 at 40 % of its iterations, 25 + 50 / 4, plus 15 %
    assert highest_settled(groups) == pytest.approx(1.15 * (25 + 12.5))


def test_nets_of_ones_own_are_neither_plain_nor_residual(own_parts, classifier) -> None:
    own = own_parts("digits-resnet20", 2, net="PreAct; 531 parameters; 0123456789ab")
    groups = label_classifiers(group_by_recipe([classifier("digits-plain20"), own]))
    svg = draw_errors(groups)
    assert "other nets" in svg
    assert "plain nets" in svg
    assert "residual nets" not in svg
