"""`reslab import` and `reslab export`: from other programs' weights to a model file and back."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reslab.cli import main
from reslab.models.config import config_named
from reslab.models.convert.layouts import torchvision_state
from reslab.models.model_file import Model, load_model, model_bytes
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet


def net_of(name: str, classes: int = 3, **update) -> Model:
    config = config_named(name).model_copy(update={"classes": classes, **update})
    prepared = Preprocessing(
        torch.rand(3, 4, 4) * 255, torch.ones(3, 1, 1), "BGR", resize=256, size=224
    )
    return Model(build_resnet(config).eval(), ("a", "b", "c"), prepared, {}, [])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """ResNet-18 with three outputs, as torchvision saves it."""
    file = tmp_path / "weights.safetensors"
    save_file(torchvision_state(net_of("resnet18", pool="padded")), file)
    return file


@pytest.fixture(autouse=True)
def own_warnings(monkeypatch) -> None:
    """Restore the handling of warnings, which the command replaces."""
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)


@pytest.fixture
def run(capsys):
    """Run a command that must succeed without messages; return the lines it prints."""

    def run(*arguments: object) -> list[str]:
        assert main(list(map(str, arguments))) == 0
        reported = capsys.readouterr()
        assert reported.err == ""
        return reported.out.splitlines()

    return run


@pytest.fixture
def one_line(capsys):
    """Run a command that must fail with one line and write nothing; return the line."""

    def run(*arguments: object, out: Path | None = None) -> str:
        before = out.read_bytes() if out and out.exists() else None
        assert main([*map(str, arguments), *(["--out", str(out)] if out else [])]) == 2
        assert before == (out.read_bytes() if out and out.exists() else None)
        reported = capsys.readouterr()
        assert reported.out == ""
        assert reported.err.startswith("reslab: ")
        assert reported.err.count("\n") == 1
        return reported.err.removeprefix("reslab: ").strip()

    return run


def test_import_says_what_it_found_and_export_gives_the_tensors_back(
    run, resnet18_file: Path, shared: Path, tmp_path: Path
) -> None:
    model, out = tmp_path / "model.safetensors", tmp_path / "back.safetensors"
    names = shared / "imagenet" / "classes.csv"
    reported = run("import", resnet18_file, "--as", "resnet18", "--out", model, "--classes", names)
    assert reported[0] == f"{model}: resnet18, from torchvision's names"
    assert "padded by one pixel (resnet18 by itself has pool=ceil)" in reported[1]
    assert "RGB, mean 123.675 116.280 103.530" in reported[2]
    assert reported[3] == "outputs: 1000, tench to toilet tissue"
    assert "folded" in reported[4]
    imported = load_model(model)
    assert imported.folded
    assert (imported.ids[1], imported.classes[1]) == ("n01443537", "goldfish")

    reported = run("export", model, "--to", "torchvision", "--out", out)
    assert reported[0] == f"{out}: resnet18, 1000 outputs, torchvision's names"
    assert "Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])" in reported[1]
    assert reported[1].endswith(", torchvision's usual")
    before, after = load_file(resnet18_file), load_file(out)
    assert before.keys() == {name for name in after if "tracked" not in name}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_outputs_without_names_are_numbers_and_that_is_said(
    weights: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "model.safetensors"
    assert main(["import", str(weights), "--as", "resnet18", "--out", str(out), "--json"]) == 0
    reported = capsys.readouterr()
    assert "3 outputs are called 0 to 2; name them with a file of classes" in reported.err
    facts = json.loads(reported.out)
    assert facts["decided"] == {"pool": "padded"}
    assert (facts["classes"], facts["ids"]) == (["0", "1", "2"], [])
    assert not facts["batch_norm_folded"]
    assert load_model(out).config.model_dump(mode="json") == facts["config"]


def test_classes_from_a_table_and_from_lines(weights: Path, tmp_path: Path, run) -> None:
    table, lines = tmp_path / "classes.csv", tmp_path / "classes.txt"
    table.write_text("index,id,name\n0,n1,crane\n1,n2,crane\n2,n3,kite\n")
    lines.write_text("ant\nbee\ncat\n")
    for file, ids, classes in [
        (table, ("n1", "n2", "n3"), ("crane", "crane", "kite")),
        (lines, (), ("ant", "bee", "cat")),
    ]:
        out = tmp_path / f"{file.suffix[1:]}.safetensors"
        run("import", weights, "--as", "resnet18", "--out", out, "--classes", file)
        assert (load_model(out).ids, load_model(out).classes) == (ids, classes)


def test_akamasters_ten_outputs_have_cifars_names(shared: Path, tmp_path: Path, run) -> None:
    out = tmp_path / "model.safetensors"
    file = shared / "weights" / "resnet20-12fca82f.th"
    reported = run("import", file, "--as", "resnet20", "--out", out)
    assert "option A: zeros on both sides" in reported[1]
    assert load_model(out).classes[:2] == ("airplane", "automobile")


def test_export_says_what_its_names_do_not(tmp_path: Path, run) -> None:
    model = net_of("resnet50-3x3", pool="padded")
    file, out = tmp_path / "model.safetensors", tmp_path / "out.pth"
    file.write_bytes(model_bytes(model))
    reported = "\n".join(run("export", file, "--to", "torchvision", "--out", out))
    mean = [round(value / 255, 6) for value in model.preprocessing.mean.mean((1, 2)).tolist()]
    assert f"Normalize(mean={mean}, std=[0.003922, 0.003922, 0.003922])" in reported
    assert "NOT torchvision's usual" in reported
    assert "mean image" in reported
    assert "reordered from BGR to RGB" in reported
    state = torch.load(out, weights_only=True)
    assert torch.equal(state["conv1.weight"], model.net.state_dict()["stem.0.conv.weight"].flip(1))
    assert len(state) == 320


@pytest.mark.parametrize("verb", ["import", "export"])
def test_help_shows_an_example(run, verb: str) -> None:
    assert f"Example: reslab {verb}" in "\n".join(run(verb, "--help"))


def test_import_refuses_in_one_line(one_line, weights: Path, tmp_path: Path) -> None:
    asked = ("import", weights, "--as", "resnet18")
    out = tmp_path / "model.safetensors"
    assert "it fits resnet18" in one_line("import", weights, "--as", "resnet34", out=out)
    assert "did you mean" in one_line("import", weights, "--as", "resnet181", out=out)
    assert "no file" in one_line("import", tmp_path / "no.pth", "--as", "resnet18", out=out)
    assert "must end in .safetensors" in one_line(*asked, out=tmp_path / "model.pth")
    assert "no folder" in one_line(*asked, out=tmp_path / "nowhere" / "m.safetensors")
    assert "exists already" in one_line(*asked, out=weights)
    names = tmp_path / "names.txt"
    for text, reason in [
        ("ant\nbee\n", "names 2 classes, the model has 3"),
        ("ant\nant\nbee\n", "names.txt:2: 'ant' a second time"),
        ("ant\n\nbee\n", "names.txt:2: an empty line"),
        ("", "names.txt names no class"),
    ]:
        names.write_text(text)
        assert reason in one_line(*asked, "--classes", names, out=out)
    names.write_bytes(b"\xff\xfe\xfa")
    assert "not UTF-8" in one_line(*asked, "--classes", names, out=out)
    assert "no such file" in one_line(*asked, "--classes", tmp_path / "no.txt", out=out)


def test_export_refuses_in_one_line(one_line, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(model_bytes(net_of("resnet20")))
    asked = ("export", file, "--to", "torchvision")
    assert "CIFAR" in one_line(*asked, out=tmp_path / "out.pth")
    assert ".safetensors or .pth or .pt" in one_line(*asked, out=tmp_path / "out.onnx")
    reported = one_line("export", file, "--to", "keras", out=tmp_path / "out.pth")
    assert "no target of export 'keras'; available: onnx" in reported
