"""Fixtures for the tests of the command."""

from collections.abc import Callable

import pytest

Refused = Callable[..., str]


@pytest.fixture
def line(refused: Refused) -> Refused:
    """Run `evaluate`, which must fail with one line, and return that line."""
    return lambda *arguments: refused("evaluate", *arguments)
