import json
from pathlib import Path

from reslab.data.boxes.folder import open_detection


def test_scenes_are_a_folder_that_detectors_read(reslab, tmp_path: Path) -> None:
    done = reslab("scenes", tmp_path / "scenes", "--train", 3, "--test", 2)
    assert done.returncode == 0, done.stderr
    assert "3 scenes to train on and 2 to test on" in done.stdout
    sets = open_detection(tmp_path / "scenes")
    assert (len(sets.train), len(sets.test)) == (3, 2)
    assert sets.train.image(2).shape == (128, 128, 3)
    written = json.loads((tmp_path / "scenes/annotations/instances_val.json").read_text())
    assert len(written["annotations"]) == sum(map(len, sets.test.truths))


def test_a_folder_with_something_in_it_is_left_alone(reslab, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = reslab("scenes", tmp_path, "--train", 1, "--test", 1)
    assert (done.returncode, done.stdout) == (2, "")
    assert "exists already" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
