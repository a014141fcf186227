"""A user's own folder: forty grey images of two classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SMALL = (
    "--set", "model.widths=[4, 4, 8, 8]", "--set", "augmentation.size=128",
    "--set", "augmentation.shorter_side=[128, 160]", "--set", "pictures.resize=144",
    "--set", "iterations=4", "--set", "recompute_bn=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark scans with one channel."""
    folder = tmp_path_factory.mktemp("own") / "scans"
    rng = np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 60)):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.clip(rng.normal(level, 30, (150, 140)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def run(reslab, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "scans"
    done = reslab("train", "own-resnet18", "--data", scans, "--out", out, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return out


def test_a_run_knows_its_classes_and_how_many_it_was_tested_on(run: Path) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    assert (recipe["model"]["classes"], recipe["batch_size"]) == (2, 32)
    report = json.loads((run / "result.json").read_text())["evaluation"][0]
    assert (report["set"], report["n"], report["top5_error"]) == ("validation", 8, None)


def test_it_is_evaluated_on_its_own_images(reslab, run: Path) -> None:
    done = reslab("evaluate", run, "--json")
    assert done.returncode == 0, done.stderr
    reported = json.loads(done.stdout)[0]
    result = json.loads((run / "result.json").read_text())["evaluation"][0]
    # batch norm is folded for inference, which rounds differently
    assert reported["loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert {key: reported[key] for key in result} == result | {"loss": reported["loss"]}


def test_a_page_shows_its_mistakes(reslab, run: Path, tmp_path: Path) -> None:
    done = reslab("report", run, "--out", tmp_path / "page")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page" / "report.html").read_text()
    assert "validation" in page
    mistakes = json.loads((run / "mistakes.json").read_text())["mistakes"]
    for mistake in mistakes:
        assert mistake["picture"] in page


def test_weights_of_no_known_layout_are_refused(refused, scans: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torch import zeros

    save_file({"conv1.weight": zeros(1)}, tmp_path / "raw.safetensors")
    line = refused(
        "train", "own-resnet18", "--data", scans, "--out", tmp_path / "run",
        "--weights", tmp_path / "raw.safetensors",
    )  # fmt: skip
    assert "raw.safetensors: the names of its tensors (conv1.weight, ...) match none of" in line
    assert not (tmp_path / "run").exists()


def test_own_recipes_need_images(refused, tmp_path: Path) -> None:
    line = refused("train", "own-resnet18", "--out", tmp_path / "run")
    assert "--data" in line
    line = refused("train", "own-resnet19", "--data", tmp_path, "--out", tmp_path / "run")
    assert "did you mean 'own-resnet18'" in line
