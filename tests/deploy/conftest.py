"""Fixtures for tests of exports."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """Keep torch's trace from pytest's log, which would take most of the time of an export."""
    logger = logging.getLogger("torch.__trace")
    logger.propagate = False
    yield
    logger.propagate = True
