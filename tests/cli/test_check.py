"""`reslab check`: exit statuses, JSON and printed text."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from tests.data.boxes.planted_boxes import plant_coco

from reslab.cli import main
from reslab.data.doctor import inspect
from reslab.runtime.text import printable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clean classes of ten images."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(10):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            (tmp_path / name / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels))
    return tmp_path


def run(*arguments: object) -> int:
    return main(["check", *map(str, arguments)])


def test_a_clean_folder_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--size", 32) == 0
    contents = "20 images in 2 classes (16 for training, 4 for validation)"
    line = f"{folder}: nothing spoils a run; {contents}; 0:00:0"
    out, err = capsys.readouterr()
    assert out[:-2] == line
    assert err == ""


def test_a_remark_is_not_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--size", 224) == 0
    out = capsys.readouterr().out
    assert "small (remark, 20): its shorter side is smaller than the net's input" in out
    assert "    cat/2.jpg  (32 x 32)\n    and 17 more; --json names all" in out
    assert f"{folder}: nothing spoils a run, 1 remark; 20 images" in out


def test_what_spoils_a_run_is_named_with_its_cure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cat/[red]bad.jpg").write_bytes(b"")
    for copy in "abcd":
        shutil.copy(folder / "dog/0.jpg", folder / f"dog/{copy}.jpg")
    assert run(folder, "--size", 32) == 1
    out = capsys.readouterr().out
    assert "empty (spoils a run, 1): training replaces it with another image" in out
    assert "    cat/[red]bad.jpg  (the file is empty)\n" in out
    assert "    dog/0.jpg = dog/a.jpg = dog/b.jpg = 2 more\n" in out
    table = out[out.index("what to do") :]
    assert "copy or download it again, or delete it" in table
    assert "delete all but one" in table
    assert f"{folder}: 2 findings spoil a run; 25 images" in out


def test_the_document_names_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        (folder / f"cat/empty{number}.jpg").write_bytes(b"")
    assert run(folder, "--size", 32, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    (finding,) = found.pop("findings")
    assert found == {
        "folder": str(folder),
        "size": 32,
        "pictures": 25,
        "spoils": 1,
        "remarks": 0,
        "parts": {"whole": {"folder": ".", "classes": {"cat": 15, "dog": 10}}},
    }
    cases = finding.pop("cases")
    assert set(finding) == {"kind", "severity", "does", "fix", "count"}
    assert (finding["kind"], finding["severity"], finding["count"]) == ("empty", "spoils", 5)
    expected = [{"files": [f"cat/empty{n}.jpg"], "note": "the file is empty"} for n in range(5)]
    assert cases == expected


def test_a_wrong_path_is_the_callers_mistake(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder / "nowhere") == 2
    assert capsys.readouterr().err == f"reslab: {folder / 'nowhere'} does not exist\n"
    assert run(folder / "cat/0.jpg") == 2
    assert capsys.readouterr().err == f"reslab: {folder / 'cat/0.jpg'} is not a folder\n"


def test_a_missing_folder_is_refused_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from reslab.cli import main; "
        f"status = main(['check', {str(tmp_path / 'nowhere')!r}]); "
        "sys.exit(10 * status + ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (20, 1)


def test_ctrl_c_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "inspect_all", stop)
    assert run(folder) == 130
    assert capsys.readouterr() == ("", "reslab: stopped\n")


def test_no_name_gives_orders_to_a_terminal() -> None:
    assert printable("café [1].jpg") == "café [1].jpg"
    assert printable("a\nü\x1b[2J\udcff") == r"a\nü\x1b[2J\udcff"


def test_images_with_boxes_are_recognised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant_coco(tmp_path, lambda it: it["annotations"][0].update(bbox=[9, 2, 3, -1]))
    assert main(["check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "swapped corners (refused, 1): training refuses the folder" in out
    assert (
        "    instances.json: annotation 1: swapped corners (box 9 2 12 1 in an image of 40 x 30"
        in out
    )
    assert "3 images with 3 boxes of 2 classes" in out.splitlines()[-1]
    assert main(["check", str(tmp_path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [it["kind"] for it in document["findings"]] == ["swapped corners", "no boxes"]
    assert document["parts"][tmp_path.name]["boxes"] == 3


def test_malformed_annotations_are_refused_in_the_words_of_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "instances.json").write_text("{\n1")
    assert main(["check", str(tmp_path)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "not trainable (refused, 1): training refuses the folder"
    assert out[1].startswith(f"    {tmp_path / 'instances.json'}:2: malformed JSON: ")
    assert out[-1].startswith(f"{tmp_path}: training refuses it; no images; ")
    command = ["train", "own-detection-resnet18-c4", "--data", str(tmp_path), "--out"]
    assert main([*command, str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"reslab: {out[1].strip()}\n"
