import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from reslab.data.datasets import EncodedImages, ImagesInMemory
from reslab.evaluation.mistakes import (
    mistakes_from,
    mistakes_json,
    must_be_mistakes,
    thumbnail,
    worst_mistakes,
)

CLASSES = ("ant", "bee", "cat")
# correct; wrong, confident; wrong, unsure; wrong, most confident; NaN; all equal
PROBABILITIES = [
    [0.90, 0.05, 0.05],
    [0.10, 0.80, 0.10],
    [0.30, 0.30, 0.40],
    [0.01, 0.01, 0.98],
    [float("nan")] * 3,
    [1 / 3] * 3,
]
LABELS = torch.tensor([0, 0, 1, 1, 2, 1])


def numbered(side: int = 4) -> ImagesInMemory:
    images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1).repeat(1, 3, side, side)
    return ImagesInMemory("test", images, LABELS, CLASSES)


def pixels_of(address: str) -> np.ndarray:
    head, data = address.split(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def logs() -> Tensor:
    return torch.tensor(PROBABILITIES).log()


def test_the_most_confident_mistakes_come_first() -> None:
    mistakes = worst_mistakes(logs(), LABELS, numbered())
    assert [mistake.file for mistake in mistakes] == ["image 3", "image 1", "image 2", "image 5"]
    assert [(mistake.truth, mistake.predicted) for mistake in mistakes] == [
        ("bee", "cat"), ("ant", "bee"), ("bee", "cat"), ("bee", "ant"),
    ]  # fmt: skip
    assert [mistake.probability for mistake in mistakes] == pytest.approx([0.98, 0.8, 0.4, 1 / 3])
    assert [mistake.truth_probability for mistake in mistakes] == pytest.approx(
        [0.01, 0.1, 0.3, 1 / 3]
    )
    assert {mistake.set for mistake in mistakes} == {"test"}
    assert [pixels_of(mistake.picture)[0, 0, 0] for mistake in mistakes] == [3, 1, 2, 5]  # lossless


def test_only_mistakes_are_listed_and_at_most_the_count() -> None:
    assert len(worst_mistakes(logs(), LABELS, numbered(), count=2)) == 2
    right = torch.tensor([0, 1, 2, 2, 2, 0])
    mistakes = worst_mistakes(logs(), right, numbered())
    assert mistakes == []


def test_mistakes_of_files_have_their_names_and_thumbnails(tmp_path: Path) -> None:
    def encoded(shade: int) -> bytes:
        data = io.BytesIO()
        Image.new("RGB", (640, 320), (shade, 0, 0)).save(data, "PNG")
        return data.getvalue()

    files = {f"bee/{shade}.png": encoded(shade) for shade in range(0, 240, 40)}
    images = EncodedImages("validation", list(files), LABELS, CLASSES, CLASSES, files.__getitem__)
    first = worst_mistakes(logs(), LABELS, images)[0]
    assert (first.set, first.file) == ("validation", "bee/120.png")
    small = pixels_of(first.picture)
    assert small.shape == (80, 160, 3)
    assert abs(int(small[40, 80, 0]) - 120) < 8  # JPEG


@pytest.mark.parametrize(
    ("size", "expected", "kind"),
    [((32, 32), (32, 32), "png"), ((80, 60), (80, 60), "png"), ((100, 90), (100, 90), "jpeg"),
     ((90, 900), (16, 160), "jpeg")],
)  # fmt: skip
def test_a_thumbnail_is_never_enlarged(size, expected, kind: str) -> None:
    address = thumbnail(np.zeros((size[1], size[0], 3), np.uint8))
    assert address.startswith(f"data:image/{kind};base64,")
    assert pixels_of(address).shape == (expected[1], expected[0], 3)


def test_mistakes_survive_json() -> None:
    mistakes = worst_mistakes(logs(), LABELS, numbered())
    text = json.dumps(mistakes_json(mistakes), allow_nan=False)
    must_be_mistakes(json.loads(text))
    assert mistakes_from(json.loads(text)) == mistakes


def test_malformed_content_and_remote_images_are_refused() -> None:
    content = mistakes_json(worst_mistakes(logs(), LABELS, numbered()))
    for other in ([], {"errors": []}, {"mistakes": {}}):
        with pytest.raises(ValueError, match="no list of 'mistakes'"):
            must_be_mistakes(other)
    with pytest.raises(ValueError, match="mistake 0 has no set"):
        must_be_mistakes({"mistakes": [{"file": "a"}]})
    content["mistakes"][0]["picture"] = "https://example.org/a.png"
    with pytest.raises(ValueError, match="not embedded in the file"):
        must_be_mistakes(content)
