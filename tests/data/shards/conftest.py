"""Images, and the same images packed."""

import shutil
from pathlib import Path

import pytest
from tests.data.shards.mixed_sets import mixed_files, quiet, set_of

from reslab.data.shards.writer import Packing, pack_sets


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    return mixed_files()


@pytest.fixture(scope="session")
def packed_once(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "packed"
    (summary,) = pack_sets({".": set_of(files)}, folder, Packing(), quiet)
    assert (summary.pictures, summary.classes, summary.reduced, summary.left_out) == (60, 3, 0, 0)
    return folder


@pytest.fixture
def packed(packed_once: Path, tmp_path: Path) -> Path:
    """A copy of the packed folder that the test may damage."""
    return shutil.copytree(packed_once, tmp_path / "packed")
