"""State dicts that several test files read and none changes."""

import pytest
from tests.models import references
from tests.models.convert.states import State, a_model, rng, torchvision_like

from reslab.models.convert.layouts import torchvision_state


@pytest.fixture(scope="session")
def small_18() -> State:
    """Weights of a ResNet-18 under torchvision's names."""
    return torchvision_state(a_model(torchvision_like("resnet18")))


@pytest.fixture(scope="session")
def authors_50() -> State:
    return references.authors_blobs(50, rng())
