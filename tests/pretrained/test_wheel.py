"""The networks of the package work from a built wheel, without the source tree and a network."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reslab
from reslab.pretrained.packaged import packaged

ROOT = Path(__file__).parents[2]
OFFLINE = """
import socket, sys

def refuse(*address):
    raise OSError("no network here")

socket.socket.connect = socket.getaddrinfo = refuse
import reslab
assert reslab.__file__.startswith(sys.argv[1]), reslab.__file__
from reslab.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the content of the wheel, built from this source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_a_network_classifies_an_image_offline(installed: Path, tmp_path: Path) -> None:
    names = list(packaged())
    if not names:
        pytest.skip("this source tree has no networks in src/reslab/pretrained")
    name = "cifar10-resnet20" if "cifar10-resnet20" in names else names[0]
    side = 32 if name.startswith("cifar10") else 16
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    done = subprocess.run(
        [
            sys.executable, "-P", "-c", OFFLINE, str(installed),
            "predict", name, "cat.png", "--top", "10", "--json",
        ],
        cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)
    (expected,) = reslab.predict(name, tmp_path / "cat.png", top=10)
    found = {row["class"]: row["probability"] for row in entry["predictions"]}
    assert found == pytest.approx({row.name: row.probability for row in expected.results})
    assert sum(found.values()) == pytest.approx(1)


def test_the_wheel_has_every_file_of_the_package(installed: Path) -> None:
    assert files_in(installed / "reslab") == files_in(ROOT / "src" / "reslab")


def files_in(package: Path) -> set[Path]:
    return {
        path.relative_to(package)
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
