"""What the tests of the command share."""

from collections.abc import Callable

import pytest

Refused = Callable[..., str]


@pytest.fixture
def line(refused: Refused) -> Refused:
    """The one line with which `evaluate` refuses."""
    return lambda *arguments: refused("evaluate", *arguments)
