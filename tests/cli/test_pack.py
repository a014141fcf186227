"""`reslab pack` as a user meets it."""

import io
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.waiting import wait_until

from reslab.cli import main


def image(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of two classes, one of them truncated."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(10):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image(number)[: 200 if number == 4 else None])
    return folder


def test_names_of_any_bytes_are_one_line(reslab, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    shutil.copytree(images, folder)
    (folder / "cat/4.jpg").rename(folder / os.fsdecode(b"cat/\n\xfe.jpg"))
    done = reslab("pack", folder, tmp_path / "packed", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stderr.startswith(r"reslab: cat/\n\udcfe.jpg: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout.startswith(r"\udcff: 9 images")


def test_packed_with_a_line_for_what_was_left_out(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "packed"
    assert main(["pack", str(images), str(out), "--shorter-side", "32", "--json"]) == 0
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("reslab: cat/4.jpg: ")
    assert line.endswith("; left out")
    size = (out / "shard-000000.tar").stat().st_size
    assert json.loads(printed.out) == {
        "out": str(out),
        "parts": [
            {
                "name": images.name, "pictures": 9, "classes": 2, "reduced": 9, "left_out": 1,
                "shards": 1, "bytes": size,
            }
        ],
    }  # fmt: skip
    assert main(["pack", str(out), str(tmp_path / "again")]) == 0
    line = f"{images.name}: 9 images of 2 classes in 1 shard, {size / 1e6:.1f} MB\n"
    assert capsys.readouterr() == (line, "")


def test_refusals(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(*arguments: object) -> str:
        assert main(["pack", *map(str, arguments)]) == 2
        printed = capsys.readouterr()
        (line,) = printed.err.splitlines()
        assert not printed.out
        return line

    assert "is not empty" in refusal(images, images.parent)
    assert "would become a class" in refusal(images, images / "new" / "packed")
    assert "--shorter-side too" in refusal(images, tmp_path / "o", "--quality", "90")
    assert "no such file" in refusal(tmp_path / "no", tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_leaves_nothing(start, tmp_path: Path, number: int, status: int) -> None:
    """It arrives after the first image of the first shard, seconds before the work is done."""
    large = tmp_path / "large.jpg"
    Image.fromarray(np.zeros((1500, 2000, 3), np.uint8)).save(large)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for count in range(500):
            (tmp_path / "images" / name / f"{count}.jpg").hardlink_to(large)
    packing = start("pack", tmp_path / "images", tmp_path / "packed")
    wait_until((tmp_path / "packed/.packing/shard-000000.tar").exists)
    packing.send_signal(number)
    done = packing.end()
    assert done.returncode == status
    assert done.stderr == f"reslab: stopped; nothing is left in {tmp_path / 'packed'}\n"
    assert not (tmp_path / "packed").exists()
