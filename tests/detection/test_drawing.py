from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from reslab.data.boxes.sets import Detections
from reslab.detection.drawing import (
    BLACK,
    RGB,
    WHITE,
    PixelBox,
    class_colour,
    draw_detections,
    place_plates,
    plate_size,
    plate_text,
    text_colour,
)

GREY = 90
CLASSES = ["cat", "dog", "bird"]


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def detections(
    boxes: Sequence[Sequence[float]], labels: Sequence[int], *scores: float
) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores or [0.9] * len(boxes)),
        torch.tensor(labels, dtype=torch.int64),
    )


def font(size: int = 16) -> ImageFont.FreeTypeFont:
    chosen = ImageFont.load_default(size)
    assert isinstance(chosen, ImageFont.FreeTypeFont)
    return chosen


def changed(drawn: Image.Image) -> np.ndarray:
    """Return a mask of the pixels of a grey image that were drawn on, bool [H, W]."""
    return (np.asarray(drawn) != GREY).any(2)


def overlap(one: PixelBox, other: PixelBox) -> bool:
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(
        one[3], other[3]
    )


def test_without_detections_the_image_is_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    before = pixels.copy()
    assert np.array_equal(np.asarray(draw_detections(pixels, detections([], []), CLASSES)), before)
    draw_detections(pixels, detections([[10, 10, 100, 100]], [0]), CLASSES)
    assert np.array_equal(pixels, before)  # drawn on a copy


@pytest.mark.parametrize(
    ("height", "width", "factor"),
    [(128, 128, 4), (32, 40, 15), (480, 640, 1), (3000, 4000, 1), (1, 5000, 1), (10, 1000, 2)],
)
def test_small_images_are_enlarged_by_a_whole_factor(height: int, width: int, factor: int) -> None:
    drawn = draw_detections(grey(height, width), detections([], []), CLASSES)
    assert drawn.size == (factor * width, factor * height)
    assert (np.asarray(drawn) == GREY).all()


def test_lines_lie_on_the_edges_of_the_box_and_nowhere_else() -> None:
    """When 128 pixels become 512, a box from 32 to 96 has its lines at 128 and 384."""
    drawn = draw_detections(grey(128, 128), detections([[32, 32, 96, 96]], [1]), CLASSES)
    pixels = np.asarray(drawn)
    for edge in (128, 384):
        assert tuple(pixels[256, edge]) == tuple(pixels[edge, 256]) == class_colour(1)
    rows, columns = changed(drawn)[:, 256].nonzero()[0], changed(drawn)[256].nonzero()[0]
    for line in (rows, columns):
        assert {int(np.abs(np.array([128, 384]) - place).min()) for place in line} <= set(range(5))
        assert (np.abs(line - 128) < 5).any()
        assert (np.abs(line - 384) < 5).any()
    assert not changed(drawn)[140:370, 140:370].any()
    above = changed(drawn)[:122]  # the plate, above the box and flush left
    assert above[100:].any()
    assert not above[:90].any()
    assert not above[:, :124].any()


def test_lines_and_letters_grow_with_the_image() -> None:
    small, large = (
        changed(
            draw_detections(
                grey(side, side), detections([[0.25 * side] * 2 + [0.75 * side] * 2], [0]), ["a"]
            )
        )
        for side in (600, 2400)
    )
    shares = [mask[mask.shape[0] // 2].mean() for mask in (small, large)]
    assert shares[0] == pytest.approx(shares[1], rel=0.3)
    assert small.mean() == pytest.approx(large.mean(), rel=0.3)


def test_the_best_detection_is_on_top() -> None:
    box = [100, 100, 300, 300]
    for scores, best in (((0.6, 0.9), 1), ((0.9, 0.6), 0)):
        drawn = draw_detections(grey(480, 480), detections([box, box], [0, 1], *scores), CLASSES)
        assert drawn.getpixel((300, 200)) == class_colour(best)


def test_a_box_at_the_border_shows_all_its_lines() -> None:
    drawn = np.asarray(
        draw_detections(grey(500, 600), detections([[0, 0, 600, 500]], [2]), CLASSES)
    )
    for line in (drawn[250, :6], drawn[250, -6:], drawn[:6, 500], drawn[-6:, 500]):
        assert (line == class_colour(2)).all(1).any()


def test_each_class_has_its_own_colour_with_legible_letters() -> None:
    colours = [class_colour(label) for label in range(200)]
    assert len(set(colours)) == 200
    apart = min(
        sum(abs(a - b) for a, b in zip(one, other, strict=True))
        for one, other in combinations(colours[:10], 2)
    )
    assert apart > 60
    assert class_colour(0) == (230, 159, 0)  # Okabe and Ito's orange
    for colour in colours:
        assert contrast(colour, text_colour(colour)) > 4.5  # minimum contrast for text in WCAG
        assert text_colour(colour) in (BLACK, WHITE)


def contrast(one: RGB, other: RGB) -> float:
    """Compute WCAG's contrast ratio with the exact sRGB curve."""
    shares = np.array([one, other]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    darker, lighter = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (lighter + 0.05) / (darker + 0.05)


def test_plates_make_room_for_one_another() -> None:
    """The plates of three equal boxes go above it, above it flush right, and below it."""
    box = (200, 200, 300, 300)
    plates = place_plates([box] * 3, [(50, 20)] * 3, (600, 600))
    assert plates == [(200, 180, 250, 200), (250, 180, 300, 200), (200, 300, 250, 320)]


def test_a_plate_does_not_hide_a_small_object() -> None:
    small = (200, 170, 240, 200)
    plates = place_plates([(200, 200, 400, 400), small], [(80, 20)] * 2, (600, 600))
    assert not any(overlap(plate, small) for plate in plates)


def test_at_the_upper_border_the_plate_goes_below() -> None:
    assert place_plates([(50, 0, 150, 100)], [(60, 20)], (600, 600)) == [(50, 100, 110, 120)]
    whole = place_plates([(0, 0, 600, 600)], [(60, 20)], (600, 600))
    assert whole == [(0, 0, 60, 20)]  # the box fills the image


corner = st.integers(0, 90)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(corner, corner, corner, corner), max_size=12))
def test_plates_stay_in_the_image(corners: list[tuple[int, int, int, int]]) -> None:
    boxes = [(x, y, x + wide + 1, y + high + 1) for x, y, wide, high in corners]
    for x0, y0, x1, y1 in place_plates(boxes, [(30, 10)] * len(boxes), (181, 181)):
        assert 0 <= x0 < x1 <= 181
        assert 0 <= y0 < y1 <= 181
        assert (x1 - x0, y1 - y0) == (30, 10)


def test_labels_fit_into_the_image() -> None:
    assert plate_text("cat", 0.973, font(), 400) == "cat  97 %"
    assert plate_text("c\nat\x1b", 0.5, font(), 400) == "c?at?  50 %"
    assert plate_text("", 1.0, font(), 400) == "  100 %"
    long = plate_text("x" * 1000, 0.5, font(), 200)
    assert long.endswith("x...  50 %")
    assert plate_size(long, font())[0] <= 200
    # not shortened more than necessary
    assert plate_size(plate_text("x" * 40, 0.5, font(), 200), font())[0] > 180
    assert plate_text("cat", 0.5, font(), 10) == "50 %"


@pytest.mark.parametrize(
    "name", ["虎", "Тигр", "نمر", "\udcff\udcfe", "🐅 e\u0301", "", "a" * 9999]
)
def test_any_name_can_be_drawn(name: str) -> None:
    drawn = draw_detections(grey(200, 300), detections([[20, 60, 80, 120]], [0]), [name])
    assert changed(drawn).any()


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (1, 1, [0, 0, 1, 1]),
        (3, 900, [0, 0, 900, 3]),
        (900, 2, [0.2, 5.5, 0.3, 5.6]),
        (50, 50, [-20.5, -3, 400, 70.2]),
        (50, 50, [49.9, 49.9, 50, 50]),
        (50, 50, [50, 50, 50, 50]),
    ],
)
def test_boxes_and_images_of_any_shape(height: int, width: int, box: list[float]) -> None:
    drawn = draw_detections(grey(height, width), detections([box], [0]), CLASSES)
    assert changed(drawn).any()
