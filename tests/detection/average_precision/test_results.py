"""Files of detections: the values read, and the messages for malformed files."""

import json
from pathlib import Path

import pytest
import torch

from reslab.data.boxes.sets import DetectionSet, GroundTruth
from reslab.detection.average_precision.results import read_results

NONE = torch.zeros(0, dtype=torch.bool)
EMPTY = GroundTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), NONE, NONE)
IMAGES = DetectionSet(
    "scenes", ["a.png", "b.png"], [EMPTY] * 2, ("cat", "dog"), ("3", "17"),
    lambda file: b"", [(100, 100)] * 2, [42, "key"],
)  # fmt: skip
GOOD = {"image_id": 42, "category_id": 17, "bbox": [1.25, 2, 3, 4.5], "score": 0.5}


@pytest.fixture
def line(tmp_path: Path):
    """Return the one-line error for a malformed file, without the folder."""

    def read(content: object) -> str:
        file = tmp_path / "found.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(ValueError, match=r"found\.json") as caught:
            read_results(file, IMAGES)
        text = str(caught.value)
        assert "\n" not in text
        assert len(text) < 300
        return text.replace(str(tmp_path) + "/", "")

    return read


def test_detections_are_read_by_image(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    more = GOOD | {"image_id": "key", "category_id": 3, "score": 1, "segmentation": []}
    file.write_text(json.dumps([GOOD, more, GOOD | {"score": 0.75}]))
    first, second = read_results(file, IMAGES)
    assert first.boxes.tolist() == [[1.25, 2, 4.25, 6.5]] * 2
    assert first.boxes.dtype == torch.float64
    assert (first.scores.tolist(), first.labels.tolist()) == ([0.5, 0.75], [1, 1])
    assert (second.scores.tolist(), second.labels.tolist()) == ([1.0], [0])


def test_an_empty_list_has_no_detections(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("[]")
    first, second = read_results(tmp_path / "found.json", IMAGES)
    assert len(first) == len(second) == 0
    assert first.boxes.shape == (0, 4)


def test_files_without_a_list_of_detections_are_refused(line) -> None:
    malformed = line('[{"image_id": 1,\n oh]')
    assert malformed.startswith("found.json:2: malformed JSON: Expecting")
    assert malformed.endswith(", column 2")
    assert line("").startswith("found.json:1: malformed JSON: ")
    assert line({"images": []}).startswith("found.json is not a list of detections, {image_id, ")
    assert line([GOOD, 7]).startswith("found.json[1] is not a detection")
    assert line("[" * 100_000).startswith("found.json: nested too deeply")
    assert line("[" + "1" * 5000 + "]").startswith("found.json: ")


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_reported_with_its_position(line, key: str) -> None:
    lacking = {name: value for name, value in GOOD.items() if name != key}
    assert line([GOOD, GOOD, lacking]).startswith(f"found.json[2] has no {key}; ")


@pytest.mark.parametrize("key", [41, True, 42.5, None, [42], "41"])
def test_unknown_images_are_named(line, key: object) -> None:
    message = line([GOOD, GOOD | {"image_id": key}])
    assert message == f"found.json[1].image_id: scenes has no image {json.dumps(key)}"


@pytest.mark.parametrize("key", [42.0, "42", "a", "042"])
@pytest.mark.parametrize("id_", [17.0, "17"])
def test_other_forms_of_ids(key: object, id_: object, tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text(json.dumps([GOOD | {"image_id": key, "category_id": id_}]))
    first, second = read_results(tmp_path / "found.json", IMAGES)
    assert (first.labels.tolist(), len(second)) == ([1], 0)


def test_a_document_with_a_list_of_annotations(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text(json.dumps({"info": {}, "annotations": [GOOD]}))
    assert len(read_results(tmp_path / "found.json", IMAGES)[0]) == 1


def test_detections_of_classes_that_the_set_lacks_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    file.write_text(json.dumps([GOOD, GOOD | {"category_id": 80}, GOOD | {"category_id": 80}]))
    reported: list = []
    first, _ = read_results(file, IMAGES, reported.append)
    assert first.labels.tolist() == [1]
    text = f"{file}: 2 detections of classes that scenes lacks are left out: 80"
    assert reported == [{"kind": "note", "text": text}]


def test_unknown_classes_are_named(line) -> None:
    message = line([GOOD | {"category_id": 18}])
    assert message.startswith("found.json[0].category_id: no class '18'")
    assert "17" in message


BAD_BOXES = ["[1, 2, 3]", '[1, 2, 3, "4"]', "[1, 2, 3, true]", "[NaN, 2, 3, 4]", "[1, 2, 3, 1e999]"]


@pytest.mark.parametrize("box", [*BAD_BOXES, "null", "{}", "[1, 2, 3, 4, 5]", "7"])
def test_boxes_that_are_not_four_numbers(line, box: str) -> None:
    message = line(json.dumps([GOOD]).replace("[1.25, 2, 3, 4.5]", box))
    assert message.startswith("found.json[0].bbox: ")
    assert message.endswith(" is not four numbers: x y width height")


@pytest.mark.parametrize("box", [[5, 5, -1, 3], [5, 5, 1, -3]])
def test_swapped_corners(line, box: list[int]) -> None:
    message = line([GOOD | {"bbox": box}])
    assert message == f"found.json[0].bbox: {box} has a negative width or height"


@pytest.mark.parametrize("score", ["NaN", "Infinity", '"0.5"', "null", "true", "9" * 400])
def test_scores_that_are_not_numbers(line, score: str) -> None:
    message = line(json.dumps([GOOD]).replace("0.5}", score + "}"))
    assert message.startswith("found.json[0].score: ")
    assert message.endswith(" is not a number")


def test_missing_files_and_files_that_are_not_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json: no such file"):
        read_results(tmp_path / "none.json", IMAGES)
    (tmp_path / "bytes.json").write_bytes(b"[\xff\xfe\x80]")
    with pytest.raises(ValueError, match=r"bytes\.json: not UTF-8 text"):
        read_results(tmp_path / "bytes.json", IMAGES)
