"""Rows of the benchmark table: order and number of turns, direction of ratios."""

import pytest

from rows import Row, alternate, compare, not_installed


def test_turns_alternate_after_a_round_that_warms_up() -> None:
    order: list[str] = []

    def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    values = alternate({"a": lambda: turn("a"), "b": lambda: turn("b")}, seconds=60)
    assert order == ["a", "b"] * 6
    assert values == {"a": [3, 5, 7, 9, 11], "b": [4, 6, 8, 10, 12]}


def test_three_rounds_are_made_when_the_time_is_up() -> None:
    assert alternate({"a": lambda: 1.0}, seconds=0) == {"a": [1.0] * 3}


@pytest.mark.parametrize(
    ("unit", "ratio", "ratio_range"),
    [("images/s", 0.5, (0.25, 1.0)), ("s", 2.0, (1.0, 4.0))],
)
def test_a_ratio_above_one_means_that_reslab_is_better(
    unit: str, ratio: float, ratio_range: tuple[float, float]
) -> None:
    row = compare(
        "w", unit, reslab=[1.0, 1.0, 1.0], peer="p", other=[2.0, 1.0, 4.0], path="", check=""
    )
    assert (row.ratio, row.ratio_range) == (ratio, ratio_range)
    assert (row.reslab, row.other, row.rounds) == (1.0, 2.0, 3)
    assert Row.model_validate_json(row.model_dump_json()) == row


def test_a_peer_that_is_not_installed_has_no_numbers() -> None:
    row = not_installed("w", "ms", reslab=[1234.4, 0.12345, 5.4321], peer="p", path="")
    assert (row.reslab, row.other, row.ratio, row.check) == (5.43, None, None, "not installed")
