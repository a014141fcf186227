"""`reslab predict`, inside this process where possible."""

import csv
import io
import json
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.api.models import load
from reslab.cli import main
from reslab.models.config import cifar_config
from reslab.models.model_file import Model, model_bytes
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet

CLASSES = ("tench", "goldfish", "great white shark")
IDS = ("n01440764", "n01443537", "n01484850")


def a_model(size: int | None, mean: torch.Tensor) -> Model:
    net = build_resnet(cifar_config(8, classes=3), torch.Generator().manual_seed(1)).eval()
    preprocessing = Preprocessing(
        mean, torch.full((3, 1, 1), 60.0), resize=size and size + 8, size=size
    )
    return Model(net, CLASSES, preprocessing, {}, [], IDS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "model.safetensors"
    out.write_bytes(model_bytes(a_model(32, torch.full((3, 1, 1), 120.0))))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good images, a bad one, and files that predict must ignore."""
    out = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    (out / "deep").mkdir()
    (out / ".hidden").mkdir()
    for name in ("b.jpg", "a.png", "deep/c.webp", "z.JPG", ".hidden/x.png", ".y.png"):
        pixels = rng.integers(0, 256, (40 + len(name), 50, 3), dtype=np.uint8)
        kind = {"g": "PNG", "p": "WEBP"}.get(name[-1], "JPEG")
        Image.fromarray(pixels).save(out / name, "JPEG" if name == "b.jpg" else kind)
    (out / "c-bad.jpg").write_bytes(b"\xff\xd8\xff no image")
    (out / "notes.txt").write_text("no image")
    return out


GOOD = ["a.png", "b.jpg", "z.JPG", "deep/c.webp"]  # in the order in which the folder is searched


def run(capsys, *arguments: object) -> tuple[int, str, list[str]]:
    """Run the verb; return exit status, standard output and lines of standard error."""
    with (
        warnings.catch_warnings()
    ):  # warnings are printed by the command but are errors under pytest
        warnings.simplefilter("default")
        status = main(["predict", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err.splitlines()


def test_one_image_is_a_block_best_first(capsys, model: Path, folder: Path) -> None:
    status, out, err = run(capsys, model, folder / "a.png")
    expected = load(model).predict(folder / "a.png")
    assert (status, err) == (0, [])
    assert out.splitlines() == [str(folder / "a.png"), *(f"  {it}" for it in expected)]
    assert len(expected) == 3


def test_a_backend_prints_the_same_lines(capsys, model: Path, folder: Path) -> None:
    expected = run(capsys, model, folder / "a.png")
    for backend in ("onnxruntime", "openvino"):
        assert run(capsys, model, folder / "a.png", "--backend", backend) == expected
    status, _, err = run(capsys, model, folder / "a.png", "--backend", "tensorrt")
    assert status == 2
    assert "no backend 'tensorrt'; available: auto, onnxruntime, openvino, torch" in err[-1]


def test_a_folder_is_a_line_each_and_a_bad_file_does_not_stop_it(
    capsys, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)  # of names short enough to be aligned
    folder = Path(folder.name)
    status, out, err = run(capsys, model, folder)
    assert status == 1
    assert len(err) == 2
    assert err[0] == "reslab: 1 file in folders left out: 1 .txt"
    assert err[1].startswith(f"reslab: {folder / 'c-bad.jpg'}: ")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [str(folder / name) for name in GOOD]
    assert len({line.index(" %") for line in lines}) == 1  # aligned
    names = [it[0].name for it in load(model).predict([folder / name for name in GOOD], top=1)]
    assert [line.split(" %  ")[1] for line in lines] == names


def test_top_gives_blocks_and_no_more_than_there_are(capsys, model: Path, folder: Path) -> None:
    _, out, _ = run(capsys, model, folder / "a.png", folder / "b.jpg", "--top", 2)
    assert len(out.splitlines()) == 2 * 3
    _, out, _ = run(capsys, model, folder / "a.png", "--top", 50)
    assert len(out.splitlines()) == 1 + 3


def test_json_is_one_list_with_the_bad_ones_in_it(capsys, model: Path, folder: Path) -> None:
    status, out, _ = run(capsys, model, folder, "--json")
    found = {Path(it["file"]).relative_to(folder).as_posix(): it for it in json.loads(out)}
    assert status == 1
    assert set(found) == {*GOOD, "c-bad.jpg"}
    assert set(found["c-bad.jpg"]) == {"file", "error"}
    assert str(folder) not in found["c-bad.jpg"]["error"]
    expected = [
        {"class": it.name, "id": it.id, "probability": pytest.approx(it.probability, rel=1e-4)}
        for it in load(model).predict(folder / "b.jpg")
    ]
    assert found["b.jpg"]["predictions"] == expected
    assert {it["id"] for it in expected} == set(IDS)


def test_json_of_bad_files_alone_is_a_list_too(capsys, model: Path, folder: Path) -> None:
    status, out, err = run(capsys, model, folder / "c-bad.jpg", folder / "missing.jpg", "--json")
    assert (status, len(err)) == (1, 2)
    assert [it["error"] for it in json.loads(out)][1] == "no such file or directory"


def test_an_image_from_standard_input(capsys, monkeypatch, model: Path, folder: Path) -> None:
    piped = io.TextIOWrapper(io.BytesIO((folder / "a.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", piped)
    status, out, err = run(capsys, model, "-", "--json")
    assert (status, err) == (0, [])
    (found,) = json.loads(out)
    expected = load(model).predict(folder / "a.png")
    assert found["file"] == "-"
    assert [it["class"] for it in found["predictions"]] == [it.name for it in expected]


def test_bad_standard_input_is_one_line(capsys, monkeypatch, model: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run(capsys, model, "-") == (1, "", ["reslab: -: the file is empty"])
    assert run(capsys, model, "-", "-")[0] == 2


def test_protocols_differ_and_are_named(capsys, model: Path, folder: Path) -> None:
    one, ten, many = (
        json.loads(run(capsys, model, folder / "a.png", "--json", "--protocol", it)[1])
        for it in ("one-crop", "ten-crop", "multi-scale:32,48")
    )
    assert one != ten != many != one
    _, _, err = run(capsys, model, folder / "a.png", "--protocol", "tencrop")
    assert err == ["reslab: no protocol 'tencrop'; did you mean 'ten-crop'?"]


def test_a_folder_without_images_and_a_model_that_is_none(
    capsys, model: Path, folder: Path, tmp_path: Path
) -> None:
    status, out, err = run(capsys, model, tmp_path)
    assert (status, out) == (2, "")
    assert "holds no images" in err[0]
    status, out, err = run(capsys, folder / "a.png", folder / "b.jpg")
    assert (status, out, len(err)) == (2, "", 1)


def test_a_net_of_one_size_says_once_that_images_were_made_to_fit(
    capsys, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "a.png", tmp_path / "a.png")
    shutil.copy(folder / "b.jpg", tmp_path / "b.jpg")
    small = a_model(None, torch.full((3, 16, 16), 120.0))
    (tmp_path / "model.safetensors").write_bytes(model_bytes(replace(small, ids=())))
    status, out, err = run(
        capsys, tmp_path / "model.safetensors", tmp_path / "a.png", tmp_path / "b.jpg"
    )
    assert (status, len(out.splitlines()), len(err)) == (0, 2, 1)
    assert "only 16x16 images" in err[0]


def test_csv_has_one_row_per_image_with_its_classes_side_by_side(
    capsys, model: Path, folder: Path
) -> None:
    assert main(["predict", str(model), str(folder), "--top", "2", "--json"]) == 1
    entries = json.loads(capsys.readouterr().out)
    assert main(["predict", str(model), str(folder), "--top", "2", "--csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == [
        "file", "class", "id", "probability", "class_2", "id_2", "probability_2", "error",
    ]  # fmt: skip
    assert [row["file"] for row in rows] == [entry["file"] for entry in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert row["error"] == entry.get("error", "")
        for suffix, found in zip(("", "_2"), entry.get("predictions", ()), strict=False):
            assert (row[f"class{suffix}"], row[f"id{suffix}"]) == (found["class"], found["id"])
            assert float(row[f"probability{suffix}"]) == pytest.approx(
                found["probability"], abs=1e-6
            )


def test_csv_names_the_most_probable_class_unless_asked_for_more(
    capsys, model: Path, folder: Path
) -> None:
    assert main(["predict", str(model), str(folder / "a.png"), "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "file,class,id,probability,error"


def test_files_that_are_not_read_are_counted_by_suffix(
    capsys, model: Path, folder: Path, tmp_path: Path
) -> None:
    for name in ("b.jxl", "c.jxl", "d.txt"):
        (tmp_path / name).write_text("no image")
    status, _, err = run(capsys, model, tmp_path)
    assert status == 2
    assert err[0].endswith("; 3 files left out: 2 .jxl, 1 .txt")
    shutil.copy(folder / "a.png", tmp_path)
    status, _, err = run(capsys, model, tmp_path)
    assert (status, err) == (0, ["reslab: 3 files in folders left out: 2 .jxl, 1 .txt"])
