"""`reslab evaluate` on detectors."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.data.boxes.planted_boxes import CAT, DOG, plant_voc, sheet
from tests.detection.small import (
    SCENES,
    classifier_file,
    detector,
    own_recipe,
    renamed,
    scenes_folder,
    short_recipe,
)

from reslab.api import test_sets
from reslab.cli import main
from reslab.data.boxes import digit_scenes as scenes
from reslab.data.boxes.sets import DetectionSplits, GroundTruth
from reslab.detection import setup as prepare
from reslab.detection.alternating import train_detector
from reslab.detection.average_precision.measure import measure
from reslab.detection.detect_set import detect_set
from reslab.detection.inference import Detector
from reslab.detection.predict import detector_bytes

Run = Callable[..., tuple[int, str, list[str]]]


IT = detector(sure=20)
IT = replace(IT, search=IT.search.with_changes({"threshold": 0.0}))


def findable() -> DetectionSplits:
    """Make scenes whose ground truth lies close to an untrained detector's detections."""
    _, found = detect_set([IT], SCENES.test, IT.search)
    truths = []
    for seen in found:
        large = (seen.boxes[:, 2:] - seen.boxes[:, :2]).amin(1) > 9
        best = seen.take(large).take(torch.tensor([0, 2, 3, 7, 11, 12]))
        shrunk = best.boxes - torch.tensor([0.0, 0, 3, 2])
        none = torch.zeros(len(best), dtype=torch.bool)
        truths.append(GroundTruth(shrunk, best.labels, none, none))
    return DetectionSplits(SCENES.train, replace(SCENES.test, truths=truths))


SETS = findable()


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (prepare, scenes, test_sets):
        monkeypatch.setattr(module, "digit_scenes", lambda: SETS)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the verb; return exit status, standard output and lines of standard error."""

    def started(*arguments: object) -> tuple[int, str, list[str]]:
        status = main(["evaluate", *map(str, arguments)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err.splitlines()

    return started


def written(path: Path, it: Detector = IT, name: str = "model.safetensors") -> Path:
    """Write the model file of a detector of scenes."""
    path.mkdir(exist_ok=True)
    made = it if it.recipe else replace(it, recipe=short_recipe().model_dump(mode="json"))
    (path / name).write_bytes(detector_bytes(made))
    return path / name


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(tmp_path)


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a user's folder."""
    home = tmp_path_factory.mktemp("own")
    folder = scenes_folder(home / "scenes")
    weights = classifier_file(home)
    recipe = own_recipe("iterations=1", "search.threshold=0.0")
    train_detector(recipe, home / "run", data=folder, weights=weights)
    return home / "run"


def expected(*detectors: Detector, sets: DetectionSplits = SETS, **changes: object) -> float:
    search = detectors[0].search.with_changes(changes)
    return measure(*detect_set(detectors, sets.test, search)).map_50_95 or 0.0


def numbers(out: str) -> list[float]:
    return [entry["map_50_95"] for entry in json.loads(out)]


def test_a_model_is_tested_on_its_own_set(run: Run, model: Path) -> None:
    status, out, err = run(model)
    assert (status, err) == (0, [])
    assert out.startswith(f"{model}  test: mAP@.5 ")
    assert "(COCO, pycocotools, n=3" in out.splitlines()[0]
    status, out, _ = run(model, "--json")
    (entry,) = json.loads(out)
    assert (entry["model"], entry["set"], entry["n"]) == (str(model), "test", 3)
    assert entry["map_50_95"] == pytest.approx(expected(IT))
    assert len(entry["per_class"]) == 10
    assert entry["map_50"] > 0
    assert run(model, "--on", "digit-scenes", "--json")[1] == out


def test_a_run_is_tested_as_it_was_at_its_end(run: Run, own_run: Path) -> None:
    result = json.loads((own_run / "result.json").read_bytes())["evaluation"]
    status, out, err = run(own_run, "--json")
    assert (status, err) == (0, [])
    entry = json.loads(out)[0]
    assert {key: entry[key] for key in result[0]} == result[0]
    same = run(own_run, "--data", own_run.parent / "scenes", "--json")
    assert same == (0, out, [])


def test_a_model_file_does_not_know_where_its_images_were(run: Run, own_run: Path) -> None:
    file = own_run / "model.safetensors"
    status, out, err = run(file)
    assert (status, out, len(err)) == (2, "", 1)
    assert "name their folder with --data" in err[0]
    status, out, _ = run(file, "--data", own_run.parent / "scenes", "--json")
    assert (status, numbers(out)) == (0, numbers(run(own_run, "--json")[1]))


def test_a_folder_of_coco_or_voc(run: Run, model: Path, tmp_path: Path) -> None:
    folder = scenes_folder(tmp_path / "scenes", SETS)
    status, out, err = run(model, "--data", folder, "--json")
    assert (status, err) == (0, [])
    assert numbers(out) == [pytest.approx(expected(IT))]
    (folder / "annotations" / "instances_train.json").unlink()
    (folder / "annotations" / "instances_val.json").rename(folder / "annotations/instances.json")
    status, out, err = run(model, "--data", folder)
    assert (status, out, len(err)) == (2, "", 1)
    assert "2 images fit this name: train/000000.png, val/000000.png" in err[0]
    (folder / "val").rename(folder / "images")
    status, out, err = run(model, "--data", folder, "--json")
    assert [line.rpartition(" ")[2] for line in err] == ["tested", "images"]
    assert err[1].endswith("train/: not listed, and not used: 6 images")
    assert numbers(out) == [pytest.approx(expected(IT))]
    voc = plant_voc(tmp_path / "voc", {"000": sheet(CAT, DOG), "001": sheet(CAT)})
    pets = replace(detector(classes=2), classes=("dog", "cat"), ids=("dog", "cat"))
    file = written(tmp_path, pets, "pets")
    status, out, err = run(file, "--data", voc)
    assert (status, len(err)) == (0, 1)
    assert "VOC 2012, area, IoU 0.5" in out
    status, out, err = run(file, "--data", voc, "--protocol", "voc-2007")
    assert "VOC 2007, eleven points" in out


def test_an_empty_test_part_is_not_replaced_by_what_was_trained_on(
    run: Run, model: Path, tmp_path: Path
) -> None:
    folder = scenes_folder(tmp_path / "scenes", SETS)
    path = folder / "annotations" / "instances_val.json"
    nothing = json.loads(path.read_bytes()) | {"images": [], "annotations": []}
    path.write_text(json.dumps(nothing))
    status, out, err = run(model, "--data", folder)
    assert (status, out, len(err)) == (2, "", 1)
    assert "the annotations list no images" in err[0]


@pytest.mark.parametrize("forged", [{"data": "scenes"}, {"years": 7}, {"validation": "most"}])
def test_a_recipe_in_a_detectors_file_is_checked_when_it_is_used(
    run: Run, tmp_path: Path, forged: dict[str, object]
) -> None:
    fields = short_recipe().model_dump(mode="json") | forged
    status, out, err = run(written(tmp_path, replace(IT, recipe=fields)))
    assert (status, out, len(err)) == (2, "", 1)
    ((key, value),) = forged.items()
    assert f"does not fit its own configuration: recipe.{key} is {value!r}: " in err[0]


def test_several_are_an_ensemble_too(run: Run, model: Path, tmp_path: Path) -> None:
    other = detector(seed=4, sure=20, search=IT.search)
    second = written(tmp_path, other, "other")
    status, out, err = run(model, second, "--json")
    assert (status, err) == (0, [])
    titles = [entry["model"] for entry in json.loads(out)]
    assert titles == [str(model), str(second), "ensemble of 2 detectors"]
    assert numbers(out) == [pytest.approx(expected(*them)) for them in ([IT], [other], [IT, other])]
    status, out, _ = run(model, model, "--json")
    alone, _, twice = numbers(out)
    assert twice == pytest.approx(alone)
    status, out, _ = run(model, second)
    assert [line for line in out.splitlines() if line.startswith("ensemble of 2 detectors  test:")]


def test_switches_of_appendix_b(run: Run, model: Path, tmp_path: Path) -> None:
    plain = numbers(run(model, "--json")[1])
    refined = numbers(run(model, "--refine", "--json")[1])
    scaled = numbers(run(model, "--scales", "32,48,64", "--json")[1])
    assert refined == [pytest.approx(expected(IT, refine=True))]
    assert scaled == [pytest.approx(expected(IT, scales=[32, 48, 64]))]
    assert len({*plain, *refined, *scaled}) == 3
    for scales, why in (("64", "two or more"), ("64,32", "increasing"), ("a,b", "as 400,600,800")):
        status, out, err = run(model, "--scales", scales)
        assert (status, out, len(err)) == (2, "", 1)
        assert why in err[0]
    # an option set in training is used in testing
    always = replace(IT, search=IT.search.with_changes({"refine": True}))
    assert numbers(run(written(tmp_path, always, "always"), "--json")[1]) == refined


def test_detectors_that_cannot_be_taken_together(run: Run, model: Path, tmp_path: Path) -> None:
    names = tuple("abcdefghij")
    others = replace(IT, classes=names)  # with the same ids
    file = written(tmp_path, others, "others")
    status, out, err = run(model, file)
    assert (status, out, len(err)) == (2, "", 1)
    assert "has different classes from" in err[0]
    larger = replace(IT, search=IT.search.with_changes({"shorter": 64}))
    status, out, err = run(model, written(tmp_path, larger, "larger"))
    assert (status, out, len(err)) == (2, "", 1)
    assert "has different inference settings" in err[0]


def test_a_classifier_among_detectors_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    other = classifier_file(tmp_path)
    for models in ((model, other), (other, model)):
        status, out, err = run(*models)
        assert (status, out, len(err)) == (2, "", 1)
        assert "evaluate them one at a time" in err[0]
    status, out, err = run(other, "--refine")
    assert (status, len(err)) == (2, 1)
    assert "--refine does not apply to classifiers" in err[0]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--on", "digits"), "digit-scenes"),
        (("--protocol", "ten-crop"), "no protocol 'ten-crop'"),
        (("--precision", "bf16"), "--precision does not apply to detectors"),
        (("--keep-scores",), "--keep-scores does not apply to detectors"),
        (("--data", "nothing"), "nothing does not exist"),
    ],
)
def test_options_that_do_not_fit(run: Run, model: Path, options: tuple[str, ...], why: str) -> None:
    status, out, err = run(model, *options)
    assert (status, out, len(err)) == (2, "", 1), err
    assert why in err[0]


def test_a_class_that_the_model_does_not_know_is_a_line(
    run: Run, model: Path, tmp_path: Path
) -> None:
    names = ("zebra", *"123456789")
    folder = scenes_folder(tmp_path / "scenes", renamed(SCENES, names, names))
    status, out, err = run(model, "--data", folder)
    assert (status, out, len(err)) == (2, "", 1)
    assert "lacks a class of validation: no class 'zebra'" in err[0]


def test_bad_images_are_named_and_left_out(run: Run, model: Path, tmp_path: Path) -> None:
    folder = scenes_folder(tmp_path / "scenes", SETS)
    (folder / "val" / "000001.png").write_bytes(b"spoilt")
    status, out, err = run(model, "--data", folder, "--json")
    assert status == 0
    assert [line for line in err if "000001.png" in line and line.endswith("left out")]
    assert json.loads(out)[0]["n"] == 2


def test_weights_that_are_no_numbers_are_a_failure_in_a_line(run: Run, tmp_path: Path) -> None:
    broken = detector()
    broken.net.proposals.conv.weight.fill_(float("nan"))
    status, out, err = run(written(tmp_path, broken))
    assert (status, out) == (1, "")
    assert "the weights are unusable" in err[-1]


def test_a_page_of_what_was_found(run: Run, model: Path, tmp_path: Path) -> None:
    status, _, err = run(model, "--report", tmp_path / "page")
    assert status == 0
    assert list((tmp_path / "page").iterdir())
    assert any(line.startswith("report: ") for line in err)
