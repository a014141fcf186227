"""`reslab evaluate` on a folder of images, inside this process."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.cli import main
from reslab.data.datasets import EncodedImages
from reslab.data.decode import BadImage
from reslab.models.config import cifar_config
from reslab.models.model_file import Model, model_bytes
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet
from reslab.recipes import recipe
from reslab.training.folder import RunFolder

CLASSES = ("ant", "bee", "cat")


def a_model(
    file: Path,
    seed: int,
    classes: tuple[str, ...] = CLASSES,
    resize: int | None = 20,
    size: int | None = 16,
    ids: tuple[str, ...] = (),
    **recipe: object,
) -> Path:
    config = cifar_config(8, classes=len(classes))
    net = build_resnet(config, torch.Generator().manual_seed(seed)).eval()
    mean, std = torch.full((3, 1, 1), 120.0), torch.full((3, 1, 1), 60.0)
    preprocessing = Preprocessing(mean, std, resize=resize, size=size)
    file.write_bytes(model_bytes(Model(net, classes, preprocessing, recipe, [], ids)))
    return file


def images(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for k in range(4):
            pixels = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")
    return folder


@pytest.fixture
def evaluate(capsys):
    """Run the verb; return its reports and its messages."""

    def run(*arguments: object) -> tuple[list[dict], str]:
        assert main(["evaluate", *map(str, arguments), "--json"]) == 0
        printed = capsys.readouterr()
        return json.loads(printed.out), printed.err

    return run


def test_csv_has_the_numbers_of_json_by_class(capsys, tmp_path: Path, evaluate) -> None:
    models = [a_model(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    data = images(tmp_path / "data")
    reports, _ = evaluate(*models, "--data", data)
    assert main(["evaluate", *map(str, models), "--data", str(data), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == [
        "model", "set", "class", "id", "n", "top1_error", "precision", "recall", "f1",
    ]  # fmt: skip
    expected = [row for report in reports for row in report["per_class"]]
    assert [row["model"] for row in rows[::3]] == [*map(str, models), "mean of 2 models"]
    assert [row["class"] for row in rows] == [row["class"] for row in expected]
    for name in ("n", "top1_error", "precision", "recall", "f1"):
        numbers = [row[name] if row[name] == "" else float(row[name]) for row in rows]
        assert numbers == ["" if row[name] is None else row[name] for row in expected]
    assert reports[0]["macro"].keys() == {"precision", "recall", "f1"}


def test_json_and_csv_exclude_each_other(capsys, tmp_path: Path) -> None:
    model = a_model(tmp_path / "model.safetensors", 1)
    assert main(["evaluate", str(model), "--json", "--csv"]) == 2
    assert "choose one" in capsys.readouterr().err


def test_the_page_shows_every_mistake_of_every_model(capsys, tmp_path: Path) -> None:
    models = [a_model(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    data, out = images(tmp_path / "data"), tmp_path / "page"
    arguments = ["evaluate", *models, "--data", data, "--report", out, "--json"]
    assert main(list(map(str, arguments))) == 0
    printed = capsys.readouterr()
    reports = json.loads(printed.out)
    assert f"report: {out / 'report.html'}" in printed.err
    html = (out / "report.html").read_text()
    assert len(reports) == 3  # two models and their mean
    wrong = sum(round(row["top1_error"] * row["n"] / 100) for row in reports)
    assert wrong > 0
    assert html.count('<img src="data:image/png;base64,') == wrong
    assert html.count("Confusion matrix") == 3
    named = re.findall(r'alt="(\w+)/\d.png">\s*<figcaption>.*<br>\s*true <b>(\w+)</b>', html)
    assert len(named) == wrong
    assert all(folder == truth for folder, truth in named)


def test_a_report_has_all_that_belongs_to_it(evaluate, tmp_path: Path) -> None:
    model, data = a_model(tmp_path / "m.safetensors", 1), images(tmp_path / "data")
    ((report,), _) = evaluate(model, "--data", data)
    assert report["model"] == str(model)
    assert (report["set"], report["protocol"], report["n"]) == ("data", "one-crop 20-16", 12)
    assert {"top1_error", "top5_error", "loss", "skipped", "top1_interval"} < report.keys()
    assert [row["class"] for row in report["per_class"]] == list(CLASSES)
    assert np.sum(report["confusion"]) == 12


def test_several_models_are_reported_and_averaged(evaluate, tmp_path: Path) -> None:
    models = [a_model(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    data = images(tmp_path / "data")
    reports, _ = evaluate(*models, "--data", data, "--protocol", "multi-scale:16,24")
    assert [report.get("model") for report in reports] == [*map(str, models), None]
    assert reports[2]["models"] == [str(model) for model in models]
    assert {report["protocol"] for report in reports} == {"multi-scale 16,24"}
    alone, _ = evaluate(models[0], models[0], "--data", data)
    assert alone[2]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-6)
    best, worst = sorted(report["loss"] for report in reports[:2])
    assert (
        reports[2]["loss"] < (best + worst) / 2
    )  # by Jensen's inequality, since the logarithm is concave


def test_kept_scores_are_used_without_being_asked_for(
    evaluate, tmp_path: Path, monkeypatch
) -> None:
    model, data = a_model(tmp_path / "m.safetensors", 1), images(tmp_path / "data")
    many, _ = evaluate(model, "--data", data, "--protocol", "ten-crop", "--keep-scores")
    kept = list((tmp_path / "m.safetensors.scores").rglob("*.safetensors"))
    assert len(kept) == 10
    fresh, said = evaluate(model, "--data", data, "--protocol", "one-crop:20-15")
    assert "from cached scores" not in said

    def forbidden(self: EncodedImages, index: int) -> np.ndarray:
        raise BadImage("decoded again")

    monkeypatch.setattr(EncodedImages, "image", forbidden)
    again, said = evaluate(model, "--data", data, "--protocol", "ten-crop")
    assert again == many
    assert "10 of 10 views read from cached scores" in said
    one, said = evaluate(model, "--data", data)
    assert "1 of 1 views read from cached scores" in said
    assert one[0]["protocol"] == "one-crop 20-16"
    assert one[0]["loss"] != fresh[0]["loss"]


def test_an_ensemble_from_kept_scores_reads_its_images_once(evaluate, tmp_path: Path) -> None:
    models = [a_model(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    data = images(tmp_path / "data")
    first, _ = evaluate(*models, "--data", data, "--keep-scores")
    again, said = evaluate(*models, "--data", data)
    assert again == first
    assert said.count("reading 12 images") == 1
    assert said.count("1 of 1 views read from cached scores") == 2


def test_scores_in_bf16_do_not_replace_others(evaluate, tmp_path: Path) -> None:
    asked = (a_model(tmp_path / "m.safetensors", 1), "--data", images(tmp_path / "data"))
    exact, _ = evaluate(*asked, "--keep-scores")
    fast, said = evaluate(*asked, "--keep-scores", "--precision", "bf16")
    assert "another model" not in said
    assert fast[0]["loss"] != exact[0]["loss"]
    again, said = evaluate(*asked)
    assert again == exact
    assert "1 of 1 views read from cached scores" in said


def test_the_preprocessing_is_part_of_what_scores_depend_on(evaluate, tmp_path: Path) -> None:
    data = images(tmp_path / "data")
    for size in (16, 20):  # equal weights and views, but windows of different sizes
        model = a_model(tmp_path / "m.safetensors", 1, size=size)
        _, said = evaluate(model, "--data", data, "--protocol", "multi-scale:24", "--keep-scores")
    assert "is not used: it has the scores of another model" in said


def test_a_bad_image_and_a_class_unknown_are_named(evaluate, tmp_path: Path) -> None:
    model, data = a_model(tmp_path / "m.safetensors", 1), images(tmp_path / "data")
    (data / "cat" / "9.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (data / "bee").rename(data / "Bees")
    ((report,), said) = evaluate(model, "--data", data)
    assert (report["n"], report["skipped"]) == (8, 1)
    assert "cat/9.png: " in said
    assert "class 'Bees' is not an output of the model; did you mean 'bee'?" in said
    assert [row["class"] for row in report["per_class"]] == ["ant", "cat"]


def test_a_file_names_the_outputs(evaluate, line, tmp_path: Path) -> None:
    model, data = a_model(tmp_path / "m.safetensors", 1, classes=("0", "1", "2")), tmp_path / "data"
    images(data)
    assert "no class of data matches an output of the model" in line(model, "--data", data)
    numbered = tmp_path / "numbered"
    images(numbered)
    for number, folder in enumerate(sorted(numbered.iterdir())):
        folder.rename(numbered / str(number))
    assert "its outputs were never named" in line(model, "--data", numbered)
    names = tmp_path / "names.csv"
    names.write_text("index,wnid,name\n0,ant,the ant\n1,bee,the bee\n2,cat,the cat\n")
    ((report,), _) = evaluate(model, "--data", data, "--classes", names)
    assert report["per_class"][1]["class"] == "the bee"
    names.write_text("index,wnid,name\n0,ant,the ant\n")
    assert "names 1 classes, the model has 3" in line(model, "--data", data, "--classes", names)


def test_a_model_from_elsewhere_needs_a_set(line, evaluate, tmp_path: Path) -> None:
    """A model that subtracts one colour takes images of any size, so digits are not resized."""
    digits = tuple(str(digit) for digit in range(10))
    model = a_model(tmp_path / "m.safetensors", 1, classes=digits, resize=None, size=None)
    assert "no set of their own" in line(model)
    ((report,), _) = evaluate(model, "--on", "digits")
    assert (report["protocol"], report["n"]) == ("one-crop", 360)
    assert "takes whole images" in line(model, "--on", "digits", "--protocol", "ten-crop")
    ((report,), _) = evaluate(model, "--on", "digits", "--protocol", "ten-crop:18-16")
    assert report["protocol"] == "ten-crop 18-16"


def test_models_of_different_classes_have_no_mean(line, tmp_path: Path) -> None:
    one = a_model(tmp_path / "1.safetensors", 1)
    two = a_model(tmp_path / "2.safetensors", 2, classes=("ant", "bee", "dog"))
    data = images(tmp_path / "data")
    assert "has different classes from" in line(one, two, "--data", data)
    one = a_model(
        tmp_path / "3.safetensors", 1, ids=("n1", "n2", "n3")
    )  # as with ImageNet's two cranes
    two = a_model(tmp_path / "4.safetensors", 2, ids=("n2", "n1", "n3"))
    assert "has different classes from" in line(one, two, "--data", data)


def test_a_folder_that_is_not_there(line, tmp_path: Path) -> None:
    model = a_model(tmp_path / "m.safetensors", 1)
    assert "is a file: name a folder" in line(model, "--data", tmp_path, "--report", model)
    assert "no such folder" in line(model, "--data", tmp_path / "nowhere")
    assert "did you mean 'ten-crop'" in line(
        model, "--data", images(tmp_path / "data"), "--protocol", "tencrop"
    )


@pytest.fixture
def own_run(tmp_path: Path) -> tuple[Path, Path]:
    """A run on an unsplit folder, and that folder."""
    data = images(tmp_path / "data")
    made = recipe("own-resnet18", data=data)
    folder = RunFolder.create(tmp_path / "run", made, {"seed": 3, "data": str(data)})
    a_model(folder.path / "model.safetensors", 1, **made.model_dump(mode="json"))
    return folder.path, data


def test_a_run_is_tested_on_images_that_it_was_not_trained_on(evaluate, own_run) -> None:
    run, data = own_run
    ((report,), said) = evaluate(run)
    assert (report["set"], report["n"]) == ("validation", 3)
    ((again,), _) = evaluate(run, "--data", data)
    assert again == report
    ((whole,), said) = evaluate(run / "model.safetensors", "--data", data)
    assert (whole["set"], whole["n"]) == ("data", 12)
    assert "has seen most of them" in said
    evaluate(run, "--keep-scores")
    assert (run / "scores").is_dir()


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        ({"pictures": {"validation": 7}}, "recipe.pictures.validation is 7: "),
        ({"pictures": {"validation": "x"}}, "recipe.pictures.validation is 'x': "),
        ({"pictures": {"share": 0.2}}, "recipe.pictures.share is 0.2: "),
        ({"pictures": {"validation": None}}, "recipe.pictures.validation is None: "),
        ({"pictures": 3}, "recipe.pictures is 3: "),
        ({"pictures": None}, "recipe.pictures is None: "),
        ({"data": ["pictures"]}, "recipe.data is ['pictures'], but must be "),
        ({"data": "photos"}, "recipe.data is 'photos', but must be "),
    ],
)
def test_a_recipe_in_a_model_file_is_checked_when_it_is_used(
    line, own_run, forged: dict[str, Any], said: str
) -> None:
    run, data = own_run
    fields = recipe("own-resnet18", data=data).model_dump(mode="json")
    a_model(run / "model.safetensors", 1, **(fields | forged))
    error = line(run)
    assert f"{run} does not fit its own configuration: {said}" in error
    if "data" in forged:
        assert said in line(run, "--data", data)


def test_images_that_are_gone(line, own_run) -> None:
    run, data = own_run
    data.rename(data.with_name("moved"))
    assert "name their folder with --data" in line(run)
