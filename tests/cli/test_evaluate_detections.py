"""`reslab evaluate` on files of detections: COCO's reference numbers, small sets, errors."""

import json
from pathlib import Path

import pytest

from reslab.cli import main

# COCO's release prints these for its example: AP, AP50, AP75, AP small, medium, large; AR 1, 10,
# 100, AR small, medium, large
REFERENCE = [.505, .697, .573, .586, .519, .501, .387, .594, .595, .640, .566, .564]  # fmt: skip


@pytest.fixture
def evaluate(capsys):
    """Run the verb, which must succeed, and return its output."""

    def run(*arguments: object) -> str:
        assert main(["evaluate", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Annotations without image files; ids begin at 0, and one class has no boxes."""
    content = {
        "images": [
            {"id": key, "file_name": f"{key}.jpg", "width": 100, "height": 80} for key in (5, 9)
        ],
        "categories": [
            {"id": 2, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 8, "name": "<owl>"}
        ],
        "annotations": [
            {"id": 0, "image_id": 5, "category_id": 2, "bbox": [10, 10, 20, 20]},
            {"id": 1, "image_id": 9, "category_id": 7, "bbox": [30, 30, 40, 20]},
        ],
    }  # fmt: skip
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """Write detections: the whole cat, and half of the dog."""
    rows = [
        {"image_id": 5, "category_id": 2, "bbox": [10, 10, 20, 20], "score": 0.9},
        {"image_id": 9, "category_id": 7, "bbox": [30, 30, 20, 20], "score": 0.8},
    ]
    file = tmp_path / "found.json"
    file.write_text(json.dumps(rows))
    return file


def test_coco_gives_its_own_numbers(evaluate, shared: Path) -> None:
    home = shared / "detection" / "cocoapi"
    file, truth = home / "instances_val2014_fakebbox100_results.json", "instances_val2014_100.json"
    (report,) = json.loads(evaluate(file, "--data", home / truth, "--json"))
    assert [round(value / 100, 3) for value in report["coco"].values()] == REFERENCE
    assert (report["n"], report["protocol"]) == (100, "COCO, pycocotools")
    assert len(report["per_class"]) == 80
    (as_folder,) = json.loads(evaluate(file, "--data", home, "--json"))
    assert as_folder["coco"] == report["coco"]
    printed = evaluate(file, "--data", home / truth)
    assert "mAP@.5 69.70 %, mAP@[.5:.95] 50.46 %  (COCO, pycocotools, n=100; 10 of 80" in printed
    for value in REFERENCE:
        assert f" {100 * value:.1f} " in printed


def test_a_report_as_json(evaluate, coco: Path, found: Path) -> None:
    (report,) = json.loads(evaluate(found, "--data", coco, "--json"))
    assert list(report) == [
        "detections", "set", "protocol", "n", "map_50", "map_50_95", "coco", "per_class",
    ]  # fmt: skip
    assert report["detections"] == str(found)
    # the dog's IoU is exactly 0.5, enough for one of the ten thresholds
    assert report["map_50"] == pytest.approx(100)
    assert report["map_50_95"] == pytest.approx(55)
    assert report["coco"]["ap_large"] is None
    cat, dog, owl = report["per_class"]
    assert dog == {
        "class": "dog", "id": "7", "boxes": 1, "detections": 1,
        "ap_50": pytest.approx(100), "ap_50_95": pytest.approx(10),
    }  # fmt: skip
    assert (cat["ap_50_95"], owl["ap_50"], owl["boxes"]) == (pytest.approx(100), None, 0)


def test_the_measures_of_voc(evaluate, coco: Path, found: Path) -> None:
    arguments = (found, "--data", coco, "--protocol", "voc-2007")
    (report,) = json.loads(evaluate(*arguments, "--json"))
    assert report["protocol"] == "VOC 2007, eleven points, IoU 0.5"
    assert (report["map_50"], report["map_50_95"]) == (pytest.approx(100), None)
    assert "coco" not in report
    printed = evaluate(*arguments)
    assert "mAP@.5 100.00 %" in printed
    assert ".5:.95" not in printed
    assert "owl" not in printed


@pytest.mark.parametrize(("year", "measure"), [("2007", "eleven points"), ("2012", "area")])
def test_a_folder_of_voc_is_measured_as_its_year_was(
    evaluate, tmp_path: Path, year: str, measure: str
) -> None:
    home = tmp_path / f"VOC{year}"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (home / name).mkdir(parents=True)
    box = "<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>"
    hard = box.replace("30", "60")
    for part, key in (("train", "000011"), ("val", "000012")):
        (home / "ImageSets" / "Main" / f"{part}.txt").write_text(f"{key}\n")
        (home / "Annotations" / f"{key}.xml").write_text(
            "<annotation><size><width>100</width><height>80</height></size>"
            f"<object><name>cat</name><difficult>0</difficult>{box}</object>"
            f"<object><name>dog</name><difficult>1</difficult>{hard}</object></annotation>"
        )
    rows = [
        {"image_id": "000012", "category_id": "cat", "bbox": [10, 10, 20, 20], "score": 0.9},
        {"image_id": "000012", "category_id": "dog", "bbox": [10, 10, 50, 50], "score": 0.9},
    ]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    arguments = (tmp_path / "found.json", "--data", home, "--json")
    (report,) = json.loads(evaluate(*arguments))
    assert measure in report["protocol"]
    assert (report["map_50"], report["n"]) == (pytest.approx(100), 1)
    assert [row["class"] for row in report["per_class"] if row["boxes"]] == ["cat"]
    (by_coco,) = json.loads(evaluate(*arguments, "--protocol", "coco"))
    assert by_coco["map_50_95"] == pytest.approx(100)


def test_the_page_has_the_table_and_the_curves(evaluate, coco, found, tmp_path: Path) -> None:
    second = tmp_path / "second.json"
    second.write_text("[]")
    evaluate(found, second, "--data", coco, "--report", tmp_path / "page", "--json")
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "Interpolated precision over recall at IoU 0.5" in page
    assert "&lt;owl&gt;" in page
    assert "<owl>" not in page
    row = f"{found}: AP@[.5:.95]"
    assert row in page
    cells = "<td>mean</td><td>2</td><td>2</td><td>100.0</td><td>55.0</td><td>0</td><td>0.0</td>"
    assert cells in page
    assert "mAP@[.5:.95] 55.00 %" in page


def test_what_does_not_go_together(line, coco: Path, found: Path, tmp_path: Path) -> None:
    assert "--data: which annotations?" in line(found)
    assert "run is not a .json file of detections" in line(found, tmp_path / "run", "--data", coco)
    for option in (
        ("--keep-scores",),
        ("--on", "digits"),
        ("--classes", coco),
        ("--precision", "bf16"),
        ("--refine",),
        ("--scales", "400,600"),
    ):
        said = line(found, "--data", coco, *option)
        assert f"{option[0]} does not apply to files of detections" in said
    assert "no protocol 'one-crop'" in line(found, "--data", coco, "--protocol", "one-crop")


def test_files_that_are_not_as_they_should_be(line, coco: Path, found: Path) -> None:
    assert "none.json: no such file" in line(found.with_name("none.json"), "--data", coco)
    assert "none.json: no such file" in line(found, "--data", coco.with_name("none.json"))
    whole = found.read_text()
    for written, instead, said in (
        ("]", "", "found.json:1: malformed JSON"),
        ('"image_id": 9', '"image_id": 6', "found.json[1].image_id: instances has no image 6"),
        ('"category_id": ', '"category_id": 1', "found.json[0].category_id: no class '1"),
        ("[30, 30, 20, 20]", "[30, 30, 20]", "found.json[1].bbox: [30, 30, 20] is not four"),
        ("0.8", "NaN", "found.json[1].score: NaN is not a number"),
    ):
        found.write_text(whole.replace(written, instead))
        assert said in line(found, "--data", coco)
    found.write_text(whole)
    coco.write_text(coco.read_text()[:-9])
    assert "instances.json:1: malformed JSON" in line(found, "--data", coco)
