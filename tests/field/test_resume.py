"""Runs that are resumed, or trained again, after their images have changed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.detection.small import classifier_file, own_recipe, scenes_folder
from tests.training.walls import TINY, draw

from reslab import train
from reslab.api.pack import pack
from reslab.api.train import interrupted_run, request_run, run
from reslab.cli import main
from reslab.recipes import AnyRecipe, any_recipe
from reslab.runtime.events import Event, silent
from reslab.training.data_record import DATA_FILE
from reslab.training.run import Interrupted
from reslab.training.setup import Inputs

NOTE = "not bit-exact from here on, the images differ: "


def stop_after(updates: int):
    asked = iter(range(1, 10_000))
    return lambda: 15 if next(asked) >= updates else None


def changes_in(events: list[Event]) -> list[str]:
    """Return the changes of the images in the notes among some events."""
    notes = [event["text"] for event in events if event["kind"] == "note"]
    return [line.removeprefix(NOTE) for line in notes if line.startswith(NOTE)]


def finish(recipe: AnyRecipe, inputs: Inputs, out: Path, seed: int) -> list[str]:
    """Train to the end; return the changes that are noted."""
    events: list[Event] = []
    run(recipe, inputs, out, seed=seed, on_event=events.append, stop=lambda: None)
    return changes_in(events)


def resume(out: Path, data: Path | None = None) -> list[str]:
    """Resume a run to its end; return the changes that are noted."""
    recipe, inputs, seed = interrupted_run(out, str(data) if data else None)
    return finish(recipe, inputs, out, seed)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of ants and bees, and a run on it that was stopped."""
    place = tmp_path_factory.mktemp("begun")
    draw(place / "data", {"ant": 6, "bee": 6})
    interrupt(place / "run", place / "data")
    return place


def interrupt(out: Path, data: Path, *changes: str, **more: Any) -> None:
    recipe = any_recipe("own-resnet18", data=str(data)).with_changes([*TINY, *changes])
    with pytest.raises(Interrupted):
        train(recipe, out, data=data, on_event=None, stop=stop_after(4), **more)


@pytest.fixture
def place(begun: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run, whose data are given anew."""
    return shutil.copytree(begun, tmp_path / "place")


def weights_of(out: Path) -> str:
    return json.loads((out / "result.json").read_bytes())["weights_sha256"]


def test_the_same_images_resume_without_a_word_and_bit_for_bit(place: Path, begun: Path) -> None:
    """Also from a packed copy, and without the record, as in a run of the first edition."""
    pack(place / "data", place / "packed")
    for name in ("packed-run", "old-run"):
        shutil.copytree(place / "run", place / name)
    assert resume(place / "run", place / "data") == []
    assert resume(place / "packed-run", place / "packed") == []
    (place / "old-run" / DATA_FILE).unlink()
    assert resume(place / "old-run", place / "data") == []
    runs = {weights_of(place / name) for name in ("run", "packed-run", "old-run")}
    assert len(runs) == 1


def test_a_renamed_class_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data/ant").rename(place / "data/red")
    assert main(["resume", str(place / "run"), "--data", str(place / "data")]) == 2
    assert "'red' is new, 'ant' is gone" in capsys.readouterr().err
    assert not (place / "run/result.json").exists()


def test_more_classes_are_named_before_their_number_is_compared(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `resume`, which has the recipe of the run, and by `train`, which makes a new one."""
    draw(place / "data", {"cow": 6})
    data = ["--data", str(place / "data")]
    changes = [part for change in TINY for part in ("--set", change)]
    again = ["train", "own-resnet18", *data, "--out", str(place / "run"), *changes]
    for command in (["resume", str(place / "run"), *data], again):
        assert main(command) == 2
        assert "run began with other classes: 'cow' is new; restore" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["added", "gone", "replaced", "swapped"])
def test_other_images_are_noted_once_and_the_run_goes_on(place: Path, kind: str) -> None:
    ants = place / "data/ant"
    match kind:
        case "added":
            shutil.copy(ants / "000.jpg", ants / "zz.jpg")
        case "gone":
            (ants / "000.jpg").unlink()
        case "replaced":
            shutil.copy(ants / "001.jpg", ants / "000.jpg")
        case "swapped":
            (ants / "000.jpg").rename(ants / "new.jpg")
    (changes,) = resume(place / "run", place / "data")
    expected = {"added": "1 added", "gone": "1 gone", "replaced": "1 changed"}
    assert expected.get(kind, "1 added, 1 gone") in changes
    assert (place / "run/result.json").exists()


def test_train_again_notes_other_images(place: Path) -> None:
    """Into an unfinished run, with a recipe that is the same for the other images."""
    (place / "data/ant/005.jpg").rename(place / "data/ant/other.jpg")
    recipe, inputs = request_run("own-resnet18", str(place / "data"), None, TINY)
    (changes,) = finish(recipe, inputs, place / "run", 1)
    assert changes.startswith("1 added, 1 gone")


def test_a_finished_run_says_that_its_images_have_changed(place: Path) -> None:
    """Only if they are opened: `resume` returns the result also where the images are gone."""
    assert resume(place / "run", place / "data") == []
    (place / "data/bee/001.jpg").unlink()
    recipe, inputs = request_run("own-resnet18", str(place / "data"), None, TINY, place / "run")
    events: list[Event] = []
    run(recipe, inputs, place / "run", seed=1, on_event=events.append, stop=lambda: None)
    notes = [event["text"] for event in events if event["kind"] == "note"]
    assert notes == ["this run is finished", "its images have changed since it began: 1 gone"]
    shutil.rmtree(place / "data")
    assert resume(place / "run") == []


def test_train_again_keeps_the_length_of_the_run(tmp_path: Path) -> None:
    """An own-* recipe is made for the number of images; the run has the one it began with."""
    data, out = draw(tmp_path / "data", {"ant": 6, "bee": 6}), tmp_path / "run"
    changes = [change for change in TINY if not change.startswith("batch_size")]
    recipe, inputs = request_run("own-resnet18", str(data), None, changes)
    with pytest.raises(Interrupted):
        run(recipe, inputs, out, seed=1, on_event=silent, stop=stop_after(4))
    for name in ("ant/001.jpg", "bee/001.jpg", "bee/002.jpg"):
        (data / name).unlink()
    assert request_run("own-resnet18", str(data), None, changes)[0].batch_size < recipe.batch_size
    again, inputs = request_run("own-resnet18", str(data), None, changes, out)
    assert again == recipe
    (note,) = finish(again, inputs, out, 1)
    assert "3 gone" in note


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scenes in COCO's layout, with a classifier to start from."""
    folder = tmp_path_factory.mktemp("scenes")
    scenes_folder(folder / "data")
    classifier_file(folder)
    return folder


@pytest.mark.parametrize("training", ["joint", "alternating"])
def test_a_detector_knows_its_images_and_classes(
    small: Path, training: str, tmp_path: Path
) -> None:
    data, out = shutil.copytree(small / "data", tmp_path / "data"), tmp_path / "run"
    changes = [f"training={training}", "fixed_stages=1"] if training == "alternating" else []
    recipe, weights = own_recipe("iterations=2", *changes), small / "classifier.safetensors"
    with pytest.raises(Interrupted):
        train(recipe, out, data=data, weights=weights, on_event=None, stop=stop_after(1))
    paths = sorted((data / "annotations").iterdir())
    before = [path.read_text() for path in paths]
    for path in paths:
        document = json.loads(path.read_text())
        document["categories"][3]["name"] = "trois"
        path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="began with other classes: 'trois' is new, '3' is gone"):
        resume(out)
    for path, text in zip(paths, before, strict=True):
        document = json.loads(text)
        document["annotations"][0]["bbox"][2] -= 1
        path.write_text(json.dumps(document))
    assert resume(out) == ["2 changed"]
    assert (out / "result.json").exists()
