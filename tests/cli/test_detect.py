"""`reslab detect`, inside this process where possible."""

import csv
import io
import json
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.detection.untrained import untrained_detector

import reslab
from reslab.cli import main
from reslab.cli.predict import SURE, objects_in_words
from reslab.data.decode import load_image
from reslab.data.formats import image_format
from reslab.detection import predict as library
from reslab.detection.drawing import draw_detections
from reslab.detection.predict import (
    DetectedImage,
    Detection,
    detector_bytes,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detector") / "model.safetensors"
    out.write_bytes(detector_bytes(untrained_detector()))
    return out


NAMES = [
    "a.jpg",
    "a.png",
    "a.webp",
    "empty.png",
    "deep/a.JPG",
]  # in the order in which the folder is searched


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the relative path of a folder with five good images and a bad one."""
    rng = np.random.default_rng(0)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in NAMES:
        patches = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        pixels = patches[:1, :1] if name == "empty.png" else patches
        image = Image.fromarray(pixels).resize((80, 60), Image.Resampling.NEAREST)
        image.save(tmp_path / "in" / name)
    (tmp_path / "in" / "b-bad.jpg").write_bytes(b"\xff\xd8\xff no image")
    monkeypatch.chdir(tmp_path)
    return Path("in")


def run(capsys, *arguments: object) -> tuple[int, str, list[str]]:
    """Run the verb; return exit status, standard output and lines of standard error."""
    status = main(["detect", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err.splitlines()


def contents(folder: Path) -> set[str]:
    return {it.relative_to(folder).as_posix() for it in folder.rglob("*") if it.is_file()}


def test_one_image_is_a_line_for_each_object(capsys, model: Path, folder: Path) -> None:
    status, out, err = run(capsys, model, folder / "a.png")
    expected = reslab.load_detector(model).detect(folder / "a.png")
    assert (status, err) == (0, [])
    assert out.splitlines() == [str(folder / "a.png"), *(f"  {it}" for it in expected)]
    assert expected
    assert SURE == library.SHOWN_SCORE
    _, out, _ = run(capsys, model, folder / "a.png", "--threshold", 1)
    assert out.splitlines() == [str(folder / "a.png"), "  nothing found"]


def test_a_folder_is_a_line_each_and_a_bad_file_does_not_stop_it(
    capsys, model: Path, folder: Path
) -> None:
    status, out, err = run(capsys, model, folder)
    assert status == 1
    assert len(err) == 1
    assert err[0].startswith(f"reslab: {folder / 'b-bad.jpg'}: ")
    files = [folder / name for name in NAMES]
    expected = [objects_in_words(objects) for objects in reslab.load_detector(model).detect(files)]
    assert out.splitlines() == [
        f"{file!s:13}  {line}" for file, line in zip(files, expected, strict=True)
    ]
    assert len({line.split(":")[0] for line in expected}) > 1


def test_a_line_names_the_best_and_counts_the_others() -> None:
    person, dog = (
        Detection("person", 0.971, (0, 0, 9, 9), "1"),
        Detection("dog", 0.88, (0, 0, 9, 9), "18"),
    )
    assert objects_in_words([]) == "nothing found"
    assert objects_in_words([dog]) == "1 object: dog 88 %"
    assert objects_in_words([person, dog]) == "2 objects: person 97 %, dog 88 %"
    assert objects_in_words([person] * 5 + [dog] * 4) == (
        "9 objects: person 97 %, person 97 %, person 97 %, person 97 %, person 97 %, dog 88 % "
        "and 3 more"
    )


def test_what_is_drawn_is_the_image_with_its_boxes(capsys, model: Path, folder: Path) -> None:
    status, _, err = run(capsys, model, folder / "a.png", "--out", "new/out")
    assert (status, err) == (0, ["1 of 1 images with their boxes: new/out"])
    finder = reslab.load_detector(model)
    (seen,) = finder.each_image([folder / "a.png"])
    assert isinstance(seen, DetectedImage)
    expected = draw_detections(seen.pixels, seen.detections, finder.classes)
    assert np.array_equal(load_image(Path("new/out/a.png").read_bytes(), ""), np.asarray(expected))
    assert expected.size == (640, 480)


def test_names_and_subfolders_are_kept_and_nothing_overwrites_another(
    capsys, model: Path, folder: Path
) -> None:
    """a.png and a.webp would both become a.png."""
    shutil.copytree(folder / "deep", "other")
    status, _, err = run(capsys, model, folder, "other/a.JPG", "--out", "out")
    assert status == 1
    assert err[-1] == "6 of 7 images with their boxes: out"
    assert contents(Path("out")) == {
        "a.jpg", "a.png", "a-2.png", "empty.png", "deep/a.JPG", "a-2.JPG", "detections.json",
    }  # fmt: skip
    assert image_format(Path("out/deep/a.JPG").read_bytes()) == "jpeg"
    assert image_format(Path("out/a-2.png").read_bytes()) == "png"


def test_the_list_is_cocos_with_names_of_images(capsys, model: Path, folder: Path) -> None:
    run(capsys, model, folder, folder / "a.jpg", "--out", "out", "--threshold", 0.3)
    rows = json.loads(Path("out/detections.json").read_bytes())
    assert {tuple(row) for row in rows} == {("image_id", "category_id", "bbox", "score")}
    assert [row["score"] for row in rows if row["image_id"] == "a.png"] == [
        pytest.approx(it.score, abs=1e-6)
        for it in reslab.load_detector(model, threshold=0.3).detect(folder / "a.png")
    ]
    found = {row["image_id"] for row in rows}
    assert "deep/a.JPG" in found
    assert found <= {
        *NAMES,
        str(folder / "a.jpg"),
    }  # named together with its folder: processed once
    assert {row["category_id"] for row in rows} <= {1, 18, "tiger"}
    assert len({row["category_id"] for row in rows}) > 1


def test_images_of_one_name_in_two_folders_are_kept_apart(
    capsys, model: Path, folder: Path
) -> None:
    shutil.copytree(folder / "deep", "other")
    run(capsys, model, folder / "deep", "other", "--out", "out", "--threshold", 0.1)
    rows = json.loads(Path("out/detections.json").read_bytes())
    assert {row["image_id"] for row in rows} == {"in/deep/a.JPG", "other/a.JPG"}
    assert contents(Path("out")) == {"a.JPG", "a-2.JPG", "detections.json"}


def test_what_was_drawn_before_is_not_looked_at_again(capsys, model: Path, folder: Path) -> None:
    for _ in range(2):
        _, out, err = run(capsys, model, folder, "--out", folder / "found")
        assert len(out.splitlines()) == 5
        assert err[-1] == f"5 of 6 images with their boxes: {folder / 'found'}"
    assert contents(folder / "found") == {
        "a.jpg", "a.png", "a-2.png", "empty.png", "deep/a.JPG", "detections.json",
    }  # fmt: skip


def test_nothing_of_anothers_is_overwritten(capsys, model: Path, folder: Path) -> None:
    before = {name: (folder / name).read_bytes() for name in contents(folder)}
    for images, out, why in (
        (folder, folder, "is the folder of the images"),
        (folder / "a.png", folder, "would overwrite in/a.png itself"),
        (folder / "deep" / "a.JPG", folder / "deep" / ".." / "deep", "would overwrite"),
        (folder / "a.png", folder / "a.jpg", "is a file"),
    ):
        status, said, err = run(capsys, model, images, "--out", out)
        assert (status, said, len(err)) == (2, "", 1)
        assert why in err[0]
    Path("album").mkdir()
    shutil.copy(folder / "a.jpg", "album/a.png")
    status, said, err = run(capsys, model, folder / "a.png", "--out", "album")
    assert (status, said, len(err)) == (2, "", 1)
    assert err[0].startswith("reslab: album/a.png exists already")
    assert {name: (folder / name).read_bytes() for name in contents(folder)} == before
    assert contents(Path("album")) == {"a.png"}


def test_json_is_one_list_with_the_bad_ones_in_it(capsys, model: Path, folder: Path) -> None:
    status, out, _ = run(capsys, model, folder, "--json", "--out", "out")
    found = {it["file"]: it for it in json.loads(out)}
    assert status == 1
    assert set(found) == {str(folder / name) for name in [*NAMES, "b-bad.jpg"]}
    assert set(found["in/b-bad.jpg"]) == {"file", "error"}
    assert not found["in/b-bad.jpg"]["error"].startswith("in/")
    expected = [
        {"class": it.name, "id": it.id, "score": pytest.approx(it.score, abs=1e-6),
         "box": pytest.approx(it.box, abs=0.01)}
        for it in reslab.load_detector(model).detect(folder / "a.webp")
    ]  # fmt: skip
    assert found["in/a.webp"]["objects"] == expected
    assert (Path("out") / "detections.json").exists()


def test_an_image_from_standard_input(capsys, monkeypatch, model: Path, folder: Path) -> None:
    piped = io.TextIOWrapper(io.BytesIO((folder / "a.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", piped)
    status, out, _ = run(capsys, model, "-", "--json", "--out", "out")
    assert status == 0
    (found,) = json.loads(out)
    assert found["file"] == "-"
    assert len(found["objects"]) == len(reslab.load_detector(model).detect(folder / "a.png"))
    assert contents(Path("out")) == {"standard-input.png", "detections.json"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run(capsys, model, "-") == (1, "", ["reslab: -: the file is empty"])


def test_switches_of_appendix_b(capsys, model: Path, folder: Path) -> None:
    outs = [
        run(capsys, model, folder / "a.png", *switches)[1]
        for switches in ([], ["--refine"], ["--scales", "32,64"], ["--threshold", "0.99"])
    ]
    assert len(set(outs)) == 4
    for scales, why in (("64", "two or more"), ("64,x", "as 400,600,800"), ("", "as 400,600,800")):
        status, _, err = run(capsys, model, folder / "a.png", "--scales", scales)
        assert (status, len(err)) == (2, 1)
        assert why in err[0]


def test_a_model_that_is_none(capsys, model: Path, folder: Path) -> None:
    for wrong in (folder / "a.png", folder, "missing"):
        status, out, err = run(capsys, wrong, folder / "a.png")
        assert (status, out, len(err)) == (2, "", 1)
    assert main(["predict", str(model), str(folder / "a.png")]) == 2
    assert "`reslab detect`" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_drawn_and_lists_it(start, model: Path, folder: Path) -> None:
    for number in range(300):
        shutil.copy(folder / "a.png", folder / f"copy-{number:03}.png")
    out = Path.cwd() / "out"
    detecting = start("detect", model, folder.resolve(), "--out", out, "--threshold", "0.3")
    deadline = time.monotonic() + 120
    while len(list(out.rglob("*.png"))) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    detecting.send_signal(signal.SIGINT)
    done = detecting.end()
    assert done.stderr.splitlines()[-1] == "reslab: stopped"
    assert done.returncode == 130
    rows = json.loads((out / "detections.json").read_bytes())
    drawn = contents(out) - {"detections.json"}
    assert 5 <= len(drawn) < 300
    assert {Path(row["image_id"]).stem for row in rows} <= {Path(name).stem for name in drawn}
    for name in drawn:
        load_image((Path("out") / name).read_bytes(), name)  # not truncated


def test_csv_has_one_row_per_object(capsys, model: Path, folder: Path) -> None:
    arguments = ["detect", str(model), str(folder), "--threshold", "0.2"]
    assert main([*arguments, "--json"]) == 1
    entries = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    expected = [
        (entry["file"], found["class"], found["id"], found["score"], found["box"])
        for entry in entries
        for found in entry.get("objects", ())
    ]
    assert expected
    assert [
        (
            row["file"], row["class"], row["id"], float(row["score"]),
            [float(row[corner]) for corner in ("x0", "y0", "x1", "y1")],
        )
        for row in rows if not row["error"]
    ] == expected  # fmt: skip
    bad = {entry["file"]: entry["error"] for entry in entries if "error" in entry}
    assert {row["file"]: row["error"] for row in rows if row["error"]} == bad
