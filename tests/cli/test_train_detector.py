"""`reslab train`, `resume`, `plan` and `recipes` for detectors; input errors are one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.data.boxes.planted_boxes import CAT, DOG, plant_voc, sheet
from tests.detection.small import (
    SCENES,
    SHORT,
    classifier,
    classifier_file,
    detector,
    scenes_folder,
)

from reslab.cli import main
from reslab.detection import setup as prepare
from reslab.detection.predict import detector_bytes
from reslab.models.config import config_named

Run = Callable[..., tuple[int, str, list[str]]]
RECIPE = "digit-scenes-resnet20-c4"
CHANGES = [*SHORT, "iterations=2", "batch_size=1", "eval_every=9", "learning_rate=0.000001"]
SETS = [f"--set={change}" for change in CHANGES]
BOXES = [*SETS, "--set=data=boxes"]


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "digit_scenes", lambda: SCENES)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; return exit status, standard output and lines of standard error."""

    def started(*arguments: object) -> tuple[int, str, list[str]]:
        status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err.splitlines()

    return started


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Callable[..., str]:
    """Run `train`, which must fail with one line and leave no run; return the line."""

    def started(*arguments: object, recipe: str = RECIPE, status: int = 2) -> str:
        out = tmp_path / "run"
        found = run("train", recipe, "--out", out, *arguments)
        assert found[:2] == (status, ""), found
        assert len(found[2]) == 1, found
        assert not out.exists()
        return found[2][0]

    return started


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_file(tmp_path_factory.mktemp("weights"), classifier(config_named("resnet20")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return scenes_folder(tmp_path / "scenes")


def spoil(folder: Path, part: str, change: Callable[[Any], object]) -> None:
    path = folder / "annotations" / f"instances_{part}.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def test_a_run_is_summed_up_and_goes_on(run: Run, tmp_path: Path, weights: Path) -> None:
    arguments = ("train", RECIPE, "--out", tmp_path / "run", "--weights", weights, *SETS)
    status, out, _ = run(*arguments)
    assert status == 0
    first, error, last = out.splitlines()
    assert first.startswith("test: mAP@.5 ")
    assert "(COCO, pycocotools, n=3; " in first
    assert error.startswith("training error ")
    assert last.startswith("2 iterations in ")
    for again in (arguments, ("resume", tmp_path / "run")):
        status, once_more, err = run(*again)
        assert (status, once_more) == (0, out)
        assert any("this run is finished" in line for line in err)
    status, out, _ = run("resume", tmp_path / "run", "--json")
    assert json.loads(out)["evaluation"][0]["n"] == 3


def test_a_resumed_run_looks_where_its_images_are_now(
    run: Run, tmp_path: Path, weights: Path, folder: Path
) -> None:
    more = ("--weights", weights, "--data", folder, *BOXES)
    assert run("train", RECIPE, "--out", tmp_path / "run", *more)[0] == 0
    (tmp_path / "run" / "result.json").unlink()
    folder.rename(tmp_path / "moved")
    status, out, err = run("resume", tmp_path / "run")
    assert (status, out) == (2, "")
    assert "does not exist" in err[-1]
    status, out, _ = run("resume", tmp_path / "run", "--data", tmp_path / "moved")
    assert status == 0
    assert "n=3" in out


def test_weights_are_needed_and_must_be_of_this_net(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    assert "--weights" in refused(*SETS)
    assert "model.norm=group" in refused(*SETS, "--set", "model.norm=recompute")
    small = classifier_file(tmp_path)
    assert "the weights belong to a net with 8 layers" in refused("--weights", small, *SETS)
    assert "no model at" in refused("--weights", tmp_path / "missing", *SETS)
    (tmp_path / "text").write_text("no model")
    assert "text is a text: weights are read from" in refused("--weights", tmp_path / "text", *SETS)


def test_a_classifier_does_not_start_from_a_detector(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(detector_bytes(detector()))
    line = refused("--weights", tmp_path / "model", recipe="digits-resnet20")
    assert "cannot start from a detector" in line


def test_data_that_are_not_there(
    refused: Callable[..., str], tmp_path: Path, weights: Path
) -> None:
    given = ("--weights", weights, *BOXES)
    assert "name their folder with --data" in refused(*given)
    assert f"{tmp_path / 'nothing'} does not exist" in refused(
        *given, "--data", tmp_path / "nothing"
    )
    (tmp_path / "empty").mkdir()
    assert "has no annotated boxes" in refused(*given, "--data", tmp_path / "empty")
    assert "is not a folder" in refused(*given, "--data", weights)
    own = "own-detection-resnet18-c4"
    assert "with --data" in refused(recipe=own)
    assert "has no annotated boxes" in refused("--data", tmp_path / "empty", recipe=own)


def malformed(folder: Path) -> None:
    path = folder / "annotations" / "instances_train.json"
    path.write_text(path.read_text()[:500])


def no_json(folder: Path) -> None:
    (folder / "annotations" / "instances_val.json").write_bytes(b"\xff\xfe\x00")


def a_list(folder: Path) -> None:
    (folder / "annotations" / "instances_val.json").write_text("[]")


def missing_image(folder: Path) -> None:
    (folder / "train" / "000003.png").unlink()


def unknown_class(folder: Path) -> None:
    spoil(folder, "train", lambda it: it["annotations"][2].update(category_id=77))


def one_class_more(folder: Path) -> None:
    for part in ("train", "val"):
        spoil(folder, part, lambda it: it["categories"].append({"id": 11, "name": "ten"}))


def no_objects(folder: Path) -> None:
    spoil(folder, "train", lambda it: it["annotations"].clear())


def swapped(folder: Path) -> None:
    spoil(folder, "train", lambda it: it["annotations"][0].update(bbox=[50, 50, -9, 20]))


FAULTS: dict[Callable[[Path], None], str] = {
    malformed: "instances_train.json:1: malformed JSON",
    no_json: "instances_val.json: not UTF-8 text",
    a_list: "instances_val.json: not COCO instances, a JSON object",
    missing_image: "000003.png does not exist",
    unknown_class: "no category has the id 77",
    one_class_more: "model.classes=10, the images have 11 classes: set model.classes=11",
    no_objects: "none of the 6 images of train has an object to detect",
    swapped: "annotation 1: swapped corners",
}


@pytest.mark.parametrize("training", ["joint", "alternating"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_faults_of_coco_are_a_line_each(
    refused: Callable[..., str], folder: Path, weights: Path,
    fault: Callable[[Path], None], training: str,
) -> None:  # fmt: skip
    fault(folder)
    before = sorted(path for path in folder.rglob("*"))
    line = refused("--weights", weights, "--data", folder, *BOXES, f"--set=training={training}")
    assert FAULTS[fault] in line
    assert sorted(path for path in folder.rglob("*")) == before


def test_faults_of_voc_are_a_line_each(
    refused: Callable[..., str], tmp_path: Path, weights: Path
) -> None:
    sheets = {f"00{number}": sheet(CAT, DOG) for number in range(4)}
    given = ("--weights", weights, *BOXES, "--set=model.classes=2")
    home = plant_voc(tmp_path / "own", sheets)
    path = home / "Annotations" / "001.xml"
    for text, why in (
        (sheet(CAT)[:60], "001.xml"),
        ("no XML at all", "001.xml"),
        (sheet(CAT).replace("<xmin>1</xmin>", "<xmin>one</xmin>"), "001.xml"),
        (sheet(("cat", (9, 9, 2, 2), "")), "swapped corners"),
    ):
        path.write_text(text)
        assert why in refused(*given, "--data", home)
    path.write_text(sheets["001"])
    (home / "JPEGImages" / "002.jpg").unlink()
    assert "002" in refused(*given, "--data", home)


def test_images_of_another_size_are_bad_files(
    run: Run, tmp_path: Path, weights: Path, folder: Path
) -> None:
    """Their boxes would not fit. A few are skipped; too many end the run with one line."""
    Image.new("RGB", (50, 40)).save(folder / "train" / "000000.png")
    more = ("--weights", weights, "--data", folder, *BOXES, "--set=iterations=6")
    status, out, err = run("train", RECIPE, "--out", tmp_path / "one", *more)
    assert status == 0
    reported = [line for line in err if "000000.png" in line]
    assert len(reported) == 1
    assert "skipped 000000.png: 50 x 40 pixels, but annotated as 128 x 128" in reported[0]
    Image.new("RGB", (50, 40)).save(folder / "train" / "000004.png")
    status, out, err = run("train", RECIPE, "--out", tmp_path / "two", *more)
    assert (status, out) == (2, "")
    assert "2 of 6 images cannot be used" in err[-1]
    assert "Traceback" not in "\n".join(err)


def test_what_was_saved_outlives_an_image_that_vanishes(
    run: Run, tmp_path: Path, weights: Path, folder: Path
) -> None:
    """An error during the run is one line; once the images are restored, the run resumes."""
    more = ("--weights", weights, "--data", folder, *BOXES, "--set=eval_every=1")
    kept = {file.name: file.read_bytes() for file in (folder / "val").iterdir()}
    out = tmp_path / "run"
    assert run("train", RECIPE, "--out", out, *more)[0] == 0
    whole = json.loads((out / "result.json").read_bytes())["state_sha256"]
    (out / "result.json").unlink()
    for file in (folder / "val").iterdir():
        file.write_bytes(b"spoilt")
    status, _, err = run("resume", out)
    assert status == 2
    assert "no image of validation can be decoded" in err[-1]
    for name, data in kept.items():
        (folder / "val" / name).write_bytes(data)
    assert run("resume", out)[0] == 0
    assert json.loads((out / "result.json").read_bytes())["state_sha256"] == whole


def test_changes_that_cannot_be(refused: Callable[..., str], weights: Path) -> None:
    given = ("--weights", weights)
    assert "did you mean 'learning_rate'" in refused(*given, "--set", "learning_rat=1")
    assert "2 stages precede the region head" in refused(*given, "--set", "fixed_stages=5")
    assert "two or more increasing sides" in refused(*given, "--set", "search.scales=[64]")
    assert "did you mean 'digit-scenes-resnet20-c4'" in refused(recipe="digit-scene-resnet20-c4")


def test_folded_weights_allow_frozen_batch_norm_alone(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    file = classifier_file(tmp_path, classifier(config_named("resnet20"), folded=True))
    for norm in ("group", "recompute"):
        assert "batch norm was folded" in refused("--weights", file, f"--set=model.norm={norm}")


@pytest.mark.parametrize("training", ["joint", "alternating"])
def test_a_plan_of_a_detector(run: Run, tmp_path: Path, weights: Path, training: str) -> None:
    more = (*SETS, "--iterations", 2, f"--set=training={training}")
    status, out, err = run("plan", RECIPE, "--weights", weights, *more)
    assert status == 0
    assert err[0] == "reslab: opening the data and building the network"
    assert err[-1] == "reslab: measuring the evaluation, for up to 2 s"
    assert "6 images, 2 iterations of 1" in out
    assert "learning rate by iteration" in out
    status, out, _ = run("plan", RECIPE, "--weights", weights, *more, "--json")
    facts = json.loads(out)
    assert facts["recipe"] == RECIPE
    assert facts["hours"] > 0
    assert list(tmp_path.iterdir()) == []
    status, out, err = run("plan", RECIPE, *more)
    assert (status, out, len(err)) == (2, "", 2)
    assert "--weights" in err[1]


def test_recipes_of_detectors_are_listed_and_shown(run: Run, weights: Path, folder: Path) -> None:
    _, out, _ = run("recipes")
    for name in (RECIPE, "coco-resnet50-c4", "voc07+12-resnet101-c4", "own-detection-resnet18-c4"):
        assert name in out
    _, out, _ = run("recipes", RECIPE, "--weights", weights)
    lines = dict(line.split(" = ", 1) for line in out.splitlines())
    assert lines["task"] == '"detection"'
    assert lines["model.norm"] == '"frozen"'
    assert lines["search.refine"] == "false"
    assert lines["weights"] != "null"
    _, out, _ = run("recipes", "--json")
    tasks = {it["name"]: it["task"] for it in json.loads(out)}
    assert (tasks[RECIPE], tasks["digits-resnet20"]) == ("detection", "classification")
    _, out, _ = run("recipes", "own-detection-resnet18-c4", "--data", folder, "--json")
    assert json.loads(out)["model"]["classes"] == 10
