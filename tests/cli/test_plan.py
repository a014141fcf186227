import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslab.api.plan import Plan
from reslab.cli.plan import cores_line, rate_curve
from reslab.recipes import recipe
from reslab.training.probe import Probe, limit_of


def test_a_plan_says_what_a_run_costs(reslab) -> None:
    done = reslab("plan", "digits-resnet20", "--iterations", 2, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["recipe"], facts["pictures"], facts["iterations"]) == (
        "digits-resnet20", 1437, 600
    )  # fmt: skip
    assert (facts["limit"], facts["pictures_per_second"]["preparing"]) == ("network", None)
    batches = 600 + 50  # updates, then batches for recomputed statistics
    shown = 11 * 360 + 360  # evaluations at 50, 100 ... 550, and at the end
    speeds = facts["pictures_per_second"]
    seconds = batches * 128 / speeds["training"] + shown / speeds["evaluating"]
    assert facts["hours"] == pytest.approx(seconds / 3600)
    assert facts["memory"] > 100e6


def test_a_plan_of_photographs_leaves_nothing_behind(reslab, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.jpg")
    small = ("augmentation.size=32", "augmentation.shorter_side=[32, 40]", "pictures.resize=40")
    changes = [part for change in small for part in ("--set", change)]
    before = sorted(tmp_path.rglob("*"))
    done = reslab("plan", "own-resnet18", "--data", tmp_path / "set", "--iterations", 1, *changes)
    assert done.returncode == 0, done.stderr
    assert "8 images, 1,500 iterations of 8" in done.stdout
    assert "images alone" in done.stdout
    assert "\ncores     " in done.stdout
    assert "reslab: measuring the disk, for up to 1 s" in done.stderr.splitlines()
    assert sorted(tmp_path.rglob("*")) == before


def test_the_curve_shows_the_drops() -> None:
    curve = rate_curve(recipe("cifar10-resnet110"))
    for text in ("32,000", "48,000", "0.1", "0.01", "0.001", "at most 2000 iterations"):
        assert text in curve
    assert "\x1b" not in curve
    assert "6 evaluations" in rate_curve(recipe("imagenet-resnet18"))


@pytest.mark.parametrize(
    ("busy", "line"),
    [
        (0.04, "cores     2, none of them busy with other work"),
        (1.24, "cores     1.2 of 2 were busy with other work: without it, the run would be faster"),
    ],
)
def test_a_plan_says_how_many_cores_are_busy(busy: float, line: str) -> None:
    speeds = Probe(1.0, 1.0, None, None, 1.0, 1, "network")
    cost = Plan(recipe("digits-resnet20"), "cpu", "fp32", 1, 1.0, 1.0, speeds, 2, busy)
    assert cores_line(cost) == line


@pytest.mark.parametrize(
    ("network", "images", "reading", "limit"),
    [
        (100, None, None, "network"),
        (100, 200, 5000, "network"),
        (300, 200, 5000, "decoding"),
        (300, 200, 250, "disk"),
    ],
)
def test_what_is_slowest_limits(network, images, reading, limit) -> None:
    assert limit_of(network, images, reading) == limit
