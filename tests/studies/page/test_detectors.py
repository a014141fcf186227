"""Pages of detectors, of runs made by hand: every object found, precisions as given."""

import base64
import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.boxes.sets import Detections
from reslab.detection.recipe import DetectionRecipe
from reslab.studies.page.album import PAGE_SIDE, albums_of, draw_image, final_detections
from reslab.studies.page.detection_findings import detector_findings, first_at
from reslab.studies.page.detectors import detectors_as_csv, parameters, write_detectors
from reslab.studies.paper import deviations
from reslab.studies.records import (
    group_by_recipe,
    read_record,
    shared_task,
)
from reslab.training.recipe import Recipe


def pair(finish_detector, **options):
    paths = [
        finish_detector(trained=True, map_50=90.0, **options),
        finish_detector(trained=False, map_50=60.0, **options),
    ]
    return [read_record(path, DetectionRecipe) for path in paths]


def labels(groups) -> list[str]:
    return [group.first.label for group in groups]


def test_the_larger_precision_is_the_best_of_several_seeds(finish_detector) -> None:
    runs = [finish_detector(seed, map_50=it) for seed, it in ((1, 80.0), (2, 84.0))]
    (group,) = group_by_recipe(read_record(run, DetectionRecipe) for run in runs)
    assert str(group.map_50) == "84.00 (82.00 ± 2.83, n=2)"
    assert group.mean_precision().map_50 == 82.0


def test_what_is_watched_on_the_way_makes_no_other_recipe(finish_detector) -> None:
    runs = [finish_detector(), finish_detector(2, changes=("watched=7", "eval_every=9"))]
    assert len(group_by_recipe(read_record(run, DetectionRecipe) for run in runs)) == 1


def test_findings_hold_the_numbers_and_what_they_are_of(finish_detector) -> None:
    groups = group_by_recipe(pair(finish_detector))
    found = " ".join(detector_findings(groups, labels(groups)))
    assert "trained trunk: mAP@.5 90.00 %, mAP@[.5:.95] 45.00 %" in found
    assert "one run, n=3 images" in found
    assert "+30.00 points of mAP@.5 and +15.00 of mAP@[.5:.95]" in found
    assert "One run each does not tell" in found
    assert "group normalisation" in found


def test_the_mark_is_reached_where_the_curve_first_is_above_it(finish_detector) -> None:
    trained, untrained = groups = group_by_recipe(
        pair(finish_detector, changes=("iterations=1000",))
    )
    assert first_at(trained, 50) == 600  # 54
    assert first_at(untrained, 50) == 900  # 54
    assert first_at(untrained, 61) is None
    said = " ".join(detector_findings(groups, labels(groups)))
    assert "after 600 iterations by the trained, after 900 iterations by the untrained" in said


def test_detectors_of_other_lengths_are_not_compared(finish_detector) -> None:
    runs = [
        finish_detector(trained=True),
        finish_detector(trained=False, changes=("iterations=9",)),
    ]
    groups = group_by_recipe(read_record(run, DetectionRecipe) for run in runs)
    assert len(detector_findings(groups, labels(groups))) == 2


def test_several_seeds_have_a_spread(finish_detector) -> None:
    runs = [finish_detector(seed, map_50=it) for seed, it in ((1, 80.0), (2, 84.0))]
    groups = group_by_recipe(read_record(run, DetectionRecipe) for run in runs)
    (found,) = detector_findings(groups, labels(groups))
    assert "mAP@.5 82.00 % ± 2.83, mAP@[.5:.95] 41.00 % ± 1.41" in found
    assert "2 seeds, mean ± std" in found


def test_deviations_of_a_detector_are_from_app_a(finish_detector) -> None:
    trained, untrained = (deviations(record.recipe) for record in pair(finish_detector))
    assert (
        "model.trunk: 101 layers, option B, imagenet stem -> 20 layers, option A, cifar stem"
        in (trained)
    )
    assert not any(line.startswith(("weights", "watched", "eval_every")) for line in trained)
    assert set(untrained) - set(trained) == {
        "model.norm: frozen -> group", "weights: of ImageNet -> None",
    }  # fmt: skip


def test_the_page_is_whole_and_needs_no_network(finish_detector, finish, tmp_path: Path) -> None:
    records = pair(finish_detector)
    trunk = read_record(finish("digits-resnet20", test_error=0.56), Recipe)
    page = write_detectors(records, tmp_path / "out", "Boxes <help>?", "Do they?", [trunk])
    html = page.read_text()
    assert "Boxes &lt;help&gt;?" in html
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:image/)", html)
    assert html.count("<img ") == 3 * 3  # truth and two detectors of each of three scenes
    assert html.count("<svg") == 2
    assert "test error 0.56 % (n=360 images)" in html
    assert "the training of App. A" in html
    assert "the training of Sec. 4.2" in html
    for name in ("learning.svg", "precision.svg"):
        assert ET.parse(tmp_path / "out" / "figures" / name).getroot().tag.endswith("svg")
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "## By class" in markdown
    assert "](figures/precision.svg)" in markdown
    again = write_detectors(records, tmp_path / "again", "Boxes <help>?", "Do they?", [trunk])
    assert again.read_text() == html


def test_images_that_have_gone_are_told_of(finish_detector, tmp_path: Path) -> None:
    run = finish_detector()
    place = json.loads((run / "environment.json").read_text()) | {"data": str(tmp_path / "gone")}
    (run / "environment.json").write_text(json.dumps(place))
    html = write_detectors(
        [read_record(run, DetectionRecipe)], tmp_path / "out", "t", "q"
    ).read_text()
    assert "<img " not in html
    assert "Without images and precision over recall: ResNet-20, trained trunk:" in html
    assert html.count("<svg") == 1


def album_of_run(run: Path):
    groups = group_by_recipe([read_record(run, DetectionRecipe)])
    known, reasons = final_detections(groups, labels(groups))
    assert reasons == []
    (album,) = albums_of(known)
    return album, known[0].images


@pytest.mark.parametrize(("score", "seen"), [(0.9, True), (0.4, False)])
def test_only_what_is_sure_is_drawn(finish_detector, score: float, seen: bool) -> None:
    album, images = album_of_run(finish_detector(score=score))
    assert album.columns == ["truth", "ResNet-20, trained trunk"]
    bare = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    for index, row in enumerate(album.rows):
        truth, found = row.images
        empty = draw_image(images.image(index), bare, images.classes)
        assert truth != empty
        assert (found != empty) == seen


def test_a_drawing_is_large_enough_to_read_and_no_larger() -> None:
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    for shape in ((64, 64, 3), (900, 1600, 3)):
        image = image_in(draw_image(np.zeros(shape, dtype=np.uint8), none, ("a",)))
        assert max(image.size) == PAGE_SIDE


def image_in(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_boxes_shrink_with_their_image() -> None:
    """A box of the left half stays in the left half of an image that was made smaller."""
    half = Detections(torch.tensor([[0.0, 0, 960, 1080]]), torch.ones(1), torch.zeros(1).long())
    black = np.zeros((1080, 1920, 3), dtype=np.uint8)
    pixels = np.asarray(image_in(draw_image(black, half, ("a",), scores=False))).max(2)
    assert pixels[:, : PAGE_SIDE // 2 + 3].max() > 150
    assert pixels[:, PAGE_SIDE // 2 + 6 :].max() < 30


def test_the_spreadsheet_has_a_line_a_run(finish_detector) -> None:
    groups = group_by_recipe(pair(finish_detector))
    rows = list(csv.DictReader(io.StringIO(detectors_as_csv(groups, labels(groups)))))
    assert [(row["map_50"], row["norm"], row["weights"]) for row in rows] == [
        ("90.0", "frozen", "a" * 64), ("60.0", "group", "none"),
    ]  # fmt: skip


def test_both_norms_have_as_many_parameters(finish_detector) -> None:
    trained, untrained = pair(finish_detector)
    assert parameters(trained) == parameters(untrained) == 293_808


def test_a_page_is_of_one_task(finish_detector, finish) -> None:
    detector, classifier = finish_detector(), finish("digits-resnet20")
    assert shared_task([detector, detector]) == "detection"
    with pytest.raises(ValueError, match=r"is a run of a classifier, .* of a detector"):
        shared_task([classifier, detector])
    with pytest.raises(ValueError, match="holds a run of a classifier, not of a detector"):
        read_record(classifier, DetectionRecipe)


def test_a_step_of_four_has_no_page(finish_detector) -> None:
    run = finish_detector()
    result = json.loads((run / "result.json").read_text()) | {"evaluation": []}
    (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match="a step of alternating training"):
        read_record(run, DetectionRecipe)
