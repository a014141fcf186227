import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.detection.untrained import CLASSES, IDS, untrained_detector

import reslab
from reslab.data.decode import BadImage
from reslab.detection.inference import detect_objects
from reslab.detection.model import detector_bytes
from reslab.detection.predict import (
    SHOWN_SCORE,
    Detection,
    DetectorPredictor,
    load_detector_predictor,
)
from reslab.models.config import cifar_config
from reslab.models.model_file import Model, model_bytes
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detector") / "model.safetensors"
    out.write_bytes(detector_bytes(untrained_detector()))
    return out


def image(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """Coloured patches."""
    patches = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(patches).resize((width, height), Image.Resampling.NEAREST))


def test_found_in_words() -> None:
    object_ = Detection("person", 0.9731, (12.2, 39.6, 200.0, 310.4), "1")
    assert str(object_) == " 97.3 %  person  at 12 40 200 310"


def test_objects_are_what_the_search_finds_best_first(model: Path) -> None:
    finder = load_detector_predictor(model)
    objects = finder.detect(image(0))
    raw = detect_objects(finder.detector, image(0), finder.detector.search)
    sure = raw.take(raw.scores >= SHOWN_SCORE)
    assert len(sure) < len(raw)
    assert [it.score for it in objects] == sure.scores.tolist()
    assert [list(it.box) for it in objects] == sure.boxes.tolist()
    assert [it.name for it in objects] == [CLASSES[label] for label in sure.labels]
    assert [it.id for it in objects] == [IDS[label] for label in sure.labels]
    scores = [it.score for it in objects]
    assert scores == sorted(scores, reverse=True)
    assert len(objects) > 1


def test_an_image_may_be_a_file_bytes_an_array_or_pillows(model: Path, tmp_path: Path) -> None:
    finder = load_detector_predictor(model)
    expected = finder.detect(image(1))
    file = tmp_path / "picture.png"
    Image.fromarray(image(1)).save(file)
    for same in (file, str(file), file.read_bytes(), Image.open(file)):
        assert finder.detect(same) == expected
    assert finder.detect([file, image(2)]) == [expected, finder.detect(image(2))]
    assert finder.detect([]) == []
    assert expected


def test_a_photograph_on_its_side_is_seen_upright(model: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    lying, out = Image.fromarray(np.rot90(image(1))), io.BytesIO()
    lying.save(out, "PNG", exif=exif)
    assert load_detector_predictor(model).detect(out.getvalue()) == load_detector_predictor(
        model
    ).detect(image(1))


def test_boxes_do_not_depend_on_the_threshold(model: Path) -> None:
    """Refinement averages over less probable boxes, which are heard though they are not told."""
    everything = load_detector_predictor(model, threshold=0.05, refine=True).detect(image(3))
    for threshold in (0.3, SHOWN_SCORE, 0.9):
        reported = load_detector_predictor(model, threshold=threshold, refine=True).detect(image(3))
        assert reported == [it for it in everything if it.score >= threshold]
        assert len(reported) < len(everything)
    assert (
        len(load_detector_predictor(model, threshold=0).detect(image(3))) == 20
    )  # as many as its search allows


def test_switches_are_the_files_unless_they_are_named(model: Path, tmp_path: Path) -> None:
    detector = untrained_detector()
    named = detector.search.model_copy(update={"refine": True, "scales": (32, 64)})
    (tmp_path / "other.safetensors").write_bytes(detector_bytes(replace(detector, search=named)))
    assert load_detector_predictor(tmp_path / "other.safetensors").search == named
    assert (
        load_detector_predictor(tmp_path / "other.safetensors", refine=False, scales=[]).search
        == detector.search
    )
    plain, refined, scaled = (
        it.detect(image(3))
        for it in (
            load_detector_predictor(model),
            load_detector_predictor(model, refine=True),
            load_detector_predictor(model, scales=[32, 64]),
        )
    )
    assert plain != refined != scaled != plain


def test_a_bad_image_is_an_answer_among_others(model: Path, tmp_path: Path) -> None:
    finder = load_detector_predictor(model)
    good, bad = finder.detect(image(1)), tmp_path / "missing.jpg"
    answers = list(finder.each([image(1), bad, b"nothing", image(1)]))
    assert answers[0] == answers[3] == good
    assert [str(it) for it in answers if isinstance(it, BadImage)] == [
        f"{bad}: no such file or directory",
        "the image: not an image (known are jpeg, png, webp, gif, bmp, tiff)",
    ]
    with pytest.raises(BadImage, match=r"missing\.jpg"):
        finder.detect([image(1), bad])
    with pytest.raises(ValueError, match=r"RGB uint8 \[H, W, 3\]"):
        finder.detect(np.zeros((4, 4), dtype=np.uint8))


def test_the_first_answer_does_not_wait_for_the_last_image(model: Path) -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield image(taken)

    answers = load_detector_predictor(model).see(endless())
    first = next(answers)
    assert not isinstance(first, BadImage)
    assert np.array_equal(first.pixels, image(1))
    assert len(first.objects) == len(first.detections)
    assert taken < 12


def test_a_finder_can_move_to_a_device(model: Path) -> None:
    finder = load_detector_predictor(model, threshold=0.4)
    moved = finder.to(torch.device("cpu"))
    assert isinstance(moved, DetectorPredictor)
    assert moved.threshold == 0.4
    assert moved.classes == CLASSES
    assert moved.detect(image(0)) == finder.detect(image(0))


def test_in_three_lines(model: Path) -> None:
    assert reslab.load_detector(model).detect(image(0)) == load_detector_predictor(model).detect(
        image(0)
    )


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_is_a_probability(model: Path, threshold: float) -> None:
    with pytest.raises(ValueError, match="a probability lies between 0 and 1"):
        load_detector_predictor(model, threshold=threshold)


@pytest.mark.parametrize(
    ("scales", "why"),
    [([64], r"scales \[64\]: two or more"), ([64, 32], "rise"), ([0, 32], "scales cannot be 0")],
)
def test_scales_that_cannot_be(model: Path, scales: list[int], why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        load_detector_predictor(model, scales=scales)
    assert "\n" not in str(caught.value)


def test_a_classifier_is_no_detector(model: Path, tmp_path: Path) -> None:
    net = build_resnet(cifar_config(8, classes=3), torch.Generator().manual_seed(1)).eval()
    grey = torch.full((3, 1, 1), 120.0)
    file = tmp_path / "classifier.safetensors"
    file.write_bytes(model_bytes(Model(net, CLASSES, Preprocessing(grey, grey / 2), {}, [])))
    with pytest.raises(ValueError, match="`reslab predict`"):
        load_detector_predictor(file)
    with pytest.raises(ValueError, match="`reslab detect`"):
        reslab.load(model)
