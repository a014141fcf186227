"""The networks in the package are complete, undamaged and small."""

import hashlib
import zlib
from pathlib import Path

import pytest

import reslab
from reslab.pretrained.packaged import HOME, MODEL, SUMS, damaged_files, packaged
from reslab.training.folder import RunFolder

MOST = 12e6  # bytes in a wheel, which is compressed; logs of 64,000 iterations shrink most


def test_every_network_is_the_one_in_the_list() -> None:
    assert not damaged_files()


def test_damage_is_noticed(tmp_path: Path) -> None:
    for name in ("one", "two", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MODEL).write_bytes(name.encode())
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("one", "two", "gone")}
    lines = [f"{digest}  {name}/{MODEL}\n" for name, digest in digests.items()]
    (tmp_path / SUMS).write_text("".join(lines))
    (tmp_path / "two" / MODEL).write_bytes(b"tw0")
    assert damaged_files(tmp_path) == [f"{name}/{MODEL}" for name in ("gone", "new", "two")]


def test_all_of_them_together_are_small() -> None:
    files = [path for path in HOME.rglob("*") if path.is_file()]
    assert sum(len(zlib.compress(path.read_bytes())) for path in files) < MOST


@pytest.mark.parametrize("name", packaged())
def test_a_network_has_its_run_beside_it(name: str) -> None:
    network = packaged()[name]
    run = RunFolder.open(network.folder)
    result = run.result()
    assert result is not None
    assert run.recipe().name == name
    assert result["iterations"] == run.recipe().iterations  # the whole recipe
    files = {path.name for path in network.folder.iterdir()}
    assert files >= {MODEL, "result.json", "recipe.json", "environment.json", "metrics.jsonl"}
    model = reslab.load(name).model
    assert model.recipe["name"] == name
    row = next(entry for entry in reslab.weights() if entry.full_name == f"{name}:reslab")
    assert row.default
    assert row.path == network.folder
