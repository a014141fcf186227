"""Damaged and hostile files that users had: each is refused with its name, or does not matter."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from tests.data.boxes.planted_boxes import CAT, plant_voc, sheet
from tests.field.annotated import coco
from tests.field.small_images import image
from tests.golden.questions import GOLDEN, copy_golden

import reslab
from reslab.data.boxes.folder import open_detection
from reslab.runtime.files import TensorFile


def finding(folder: Path) -> str:
    """Return the findings of a check as text."""
    return json.dumps(reslab.check(folder, on_event=None).as_dict())


@pytest.mark.parametrize("codec", ["rot13", "hex", "zip", "utf_8_no", "undefined"])
def test_annotations_that_name_a_codec_that_is_no_text_encoding(tmp_path: Path, codec: str) -> None:
    declared = f'<?xml version="1.0" encoding="{codec}"?>{sheet(CAT)}'
    plant_voc(tmp_path, {"a": sheet(CAT), "b": declared, "c": sheet(CAT)})
    with pytest.raises(ValueError, match=r"^Annotations/b\.xml:1: "):
        open_detection(tmp_path)
    assert "Annotations/b.xml:1" in finding(tmp_path)


def test_annotations_in_gbk(tmp_path: Path) -> None:
    text = sheet(("猫", (1, 1, 9, 9), ""))
    plant_voc(tmp_path, {"a": sheet(CAT), "b": sheet(CAT)}, train=["a"], val=["b"])
    declared = f'<?xml version="1.0" encoding="gbk"?>{text}'.encode("gbk")
    (tmp_path / "Annotations" / "a.xml").write_bytes(declared)
    (tmp_path / "Annotations" / "b.xml").write_text(text)
    assert open_detection(tmp_path).train.classes == ("猫",)


@pytest.mark.parametrize("key", ["id", "category_id", "iscrowd"])
def test_a_number_of_five_thousand_digits(tmp_path: Path, key: str) -> None:
    for number in range(6):
        image(tmp_path / "images" / f"{number:03}.png", 40, 30)
    text = json.dumps(coco()).replace(f'"{key}": ', f'"{key}": {"9" * 5000}', 1)
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(ValueError, match=r"instances\.json: a number has too many digits"):
        open_detection(tmp_path)
    assert "instances.json: a number has too many digits" in finding(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "classifier", tmp_path / "run"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"kind": "train"}', "there is no 'iteration' in it"),
        ('{"kind": "train", "iteration": 1}', "there is no 'train_error' in it"),
        ('{"kind": "eval", "iteration": 1, "set": null, "top1_error": 1}', "set is None"),
        ("3", "3 is not an object"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_of_a_log_that_is_json_and_nothing_else(run: Path, line: str, reason: str) -> None:
    log = run / "metrics.jsonl"
    first, *rest = log.read_text().splitlines()
    log.write_text("\n".join([first, line, *rest]) + "\n")
    with pytest.raises(ValueError, match=rf"run/metrics\.jsonl:2 is damaged: {reason}"):
        reslab.report(run, run.parent / "page")


@pytest.mark.parametrize(
    "name", ["recipe.json", "environment.json", "result.json", "mistakes.json"]
)
def test_json_of_a_hundred_thousand_brackets(run: Path, name: str) -> None:
    (run / name).write_text("[" * 100_000)
    with pytest.raises(ValueError, match=rf"run/{name}.*nested too deeply"):
        reslab.report(run, run.parent / "page")


def test_facts_of_a_hundred_thousand_brackets(run: Path) -> None:
    for key in ("facts", "config"):
        with safe_open(run / "model.safetensors", "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(tensors, run / "model.safetensors", {key: "[" * 100_000})
        with pytest.raises(ValueError, match=r"run/model\.safetensors .*nested too deeply"):
            reslab.load(run)


def flip(file: Path, at: int) -> bytes:
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << at % 8
    return bytes(data)


def test_every_bit_of_the_preprocessing_matters_to_a_resumed_run(tmp_path: Path) -> None:
    """No bit can be flipped without a word: the file has a checksum."""
    preprocessing = tmp_path / "preprocessing.safetensors"
    old = TensorFile.read(GOLDEN / "photographs" / "preprocessing.safetensors")
    preprocessing.write_bytes(TensorFile(old.tensors, old.facts).to_bytes())
    whole = TensorFile.read(preprocessing)
    assert whole.has_checksum
    data, silent = preprocessing.read_bytes(), []
    for at in range(len(data)):
        preprocessing.write_bytes(data)
        preprocessing.write_bytes(flip(preprocessing, at))
        try:
            read = TensorFile.read(preprocessing)
        except ValueError:
            continue
        same = read.facts == whole.facts and all(
            value.equal(read.tensors[name]) for name, value in whole.tensors.items()
        )
        if read.has_checksum and not same:
            silent.append(at)
    assert not silent


@pytest.mark.filterwarnings("ignore::UserWarning")  # no checksum, a small map
def test_scores_of_another_type_are_computed_again(tmp_path: Path) -> None:
    places = copy_golden(tmp_path)
    (file,) = places["scored"].rglob("scores/*/*.safetensors")
    whole = file.read_bytes()
    events: list[reslab.Event] = []
    computed = str(reslab.evaluate(places["photographs"], on_event=None)[0].report)
    for kind in (b"I32", b"F16", b"U8 "):
        file.write_bytes(whole.replace(b'"F32"', b'"' + kind + b'"', 1))
        again = str(reslab.evaluate(places["scored"], on_event=events.append)[0].report)
        assert again == computed
        assert any(f"{file} is not used" in str(event.get("text")) for event in events)
        events.clear()
