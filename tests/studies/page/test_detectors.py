"""Pages for detectors, from runs written by hand that detect every object."""

import base64
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
from reslab.studies.page.detectors import (
    PAGE_SIDE,
    albums_of,
    draw_image,
    final_detections,
    write_detectors,
    write_precision,
)
from reslab.studies.records import group_by_recipe, read_record

NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def test_the_page_is_whole_and_needs_no_network(pair, classifier, tmp_path: Path) -> None:
    records = pair()
    trunk = classifier("digits-resnet20", test_error=0.56)
    page = write_detectors(records, tmp_path / "out", ("Boxes <help>?", "Do they?"), [trunk])
    html = page.read_text()
    assert "Boxes &lt;help&gt;?" in html
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:image/)", html)
    assert html.count("<img ") == 3 * 3  # ground truth and two detectors for each of three scenes
    assert html.count("<svg") == 2
    assert "test error 0.56 % (n=360 images)" in html
    assert "the training described in App. A" in html
    assert "the training described in Sec. 4.2" in html
    for name in ("learning.svg", "precision.svg"):
        assert ET.parse(tmp_path / "out" / "figures" / name).getroot().tag.endswith("svg")
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "## By class" in markdown
    assert "](figures/precision.svg)" in markdown
    again = write_detectors(records, tmp_path / "again", ("Boxes <help>?", "Do they?"), [trunk])
    assert again.read_text() == html


def test_missing_images_are_reported(finish_detector, tmp_path: Path) -> None:
    run = finish_detector()
    environment = json.loads((run / "environment.json").read_text())
    gone = environment | {"data": str(tmp_path / "gone")}
    (run / "environment.json").write_text(json.dumps(gone))
    record = read_record(run, DetectionRecipe)
    html = write_detectors([record], tmp_path / "out", ("t", "q")).read_text()
    assert "<img " not in html
    assert "No images and no precision over recall for ResNet-20, pretrained trunk:" in html
    assert html.count("<svg") == 1


def final_of(record):
    groups = {group.first.label: group for group in group_by_recipe([record])}
    (final,), reasons = final_detections(groups)
    assert reasons == []
    return final


def test_average_precisions_make_a_page_without_runs(detector, tmp_path: Path) -> None:
    precision = final_of(detector()).precision
    html = write_precision([("a.json", precision), ("b.json", precision)], tmp_path).read_text()
    assert "a.json: " in html
    assert "AP 50 100.0" in html
    assert "<th>b.json: AP@[.5:.95]</th>" in html
    assert html.count("<svg") == 2
    assert "Recipes" not in html


@pytest.mark.parametrize(("score", "drawn"), [(0.9, True), (0.4, False)])
def test_only_probable_detections_are_drawn(detector, score: float, drawn: bool) -> None:
    final = final_of(detector(score=score))
    (album,) = albums_of([final])
    assert album.columns == ["ground truth", "ResNet-20, pretrained trunk"]
    for index, (_, (truth, detections)) in enumerate(album.rows):
        empty = draw_image(final.images.image(index), NOTHING, final.images.classes)
        assert truth != empty
        assert (detections != empty) == drawn


def image_in(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_a_drawing_is_large_enough_to_read_and_no_larger() -> None:
    for shape in ((64, 64, 3), (900, 1600, 3)):
        image = image_in(draw_image(np.zeros(shape, dtype=np.uint8), NOTHING, ("a",)))
        assert max(image.size) == PAGE_SIDE


def test_boxes_shrink_with_their_image() -> None:
    """A box around the left half is still around the left half of a reduced image."""
    half = Detections(torch.tensor([[0.0, 0, 960, 1080]]), torch.ones(1), torch.zeros(1).long())
    black = np.zeros((1080, 1920, 3), dtype=np.uint8)
    pixels = np.asarray(image_in(draw_image(black, half, ("a",), scores=False))).max(2)
    assert pixels[:, : PAGE_SIDE // 2 + 3].max() > 150
    assert pixels[:, PAGE_SIDE // 2 + 6 :].max() < 30
