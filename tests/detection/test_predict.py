import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.detection.small import LARGE, classifier_file, detector, short_recipe
from tests.detection.untrained import CLASSES, IDS, untrained_detector

import reslab
from reslab.data.decode import BadImage
from reslab.detection.inference import Detector, detect_objects, prepare_for_inference
from reslab.detection.predict import (
    SHOWN_SCORE,
    DetectedImage,
    Detection,
    DetectorPredictor,
    detector_bytes,
    is_detector,
    load_detector,
)
from reslab.detection.recipe import InferenceConfig
from reslab.models.batchnorm import norms_of
from reslab.models.config import cifar_config
from reslab.models.model_file import Model, model_bytes
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet
from reslab.runtime.files import TensorFile, sha256_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detector") / "model.safetensors"
    out.write_bytes(detector_bytes(untrained_detector()))
    return out


def image(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """Return an image of coloured patches."""
    patches = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(patches).resize((width, height), Image.Resampling.NEAREST))


def test_a_detection_as_text() -> None:
    object_ = Detection("person", 0.9731, (12.2, 39.6, 200.0, 310.4), "1")
    assert str(object_) == " 97.3 %  person  at 12 40 200 310"


def test_objects_are_the_probable_detections_best_first(model: Path) -> None:
    predictor = reslab.load_detector(model)
    objects = predictor.detect(image(0))
    raw = detect_objects(predictor.detector, image(0), predictor.detector.search)
    sure = raw.take(raw.scores >= SHOWN_SCORE)
    assert len(sure) < len(raw)
    assert [object_.score for object_ in objects] == sure.scores.tolist()
    assert [list(object_.box) for object_ in objects] == sure.boxes.tolist()
    assert [object_.name for object_ in objects] == [CLASSES[label] for label in sure.labels]
    assert [object_.id for object_ in objects] == [IDS[label] for label in sure.labels]
    scores = [object_.score for object_ in objects]
    assert scores == sorted(scores, reverse=True)
    assert len(objects) > 1


def test_an_image_may_be_a_file_bytes_an_array_or_from_pillow(model: Path, tmp_path: Path) -> None:
    predictor = reslab.load_detector(model)
    expected = predictor.detect(image(1))
    file = tmp_path / "image.png"
    Image.fromarray(image(1)).save(file)
    for same in (file, str(file), file.read_bytes(), Image.open(file)):
        assert predictor.detect(same) == expected
    assert predictor.detect([file, image(2)]) == [expected, predictor.detect(image(2))]
    assert predictor.detect([]) == []
    assert expected


def test_a_photograph_on_its_side_is_seen_upright(model: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    lying, out = Image.fromarray(np.rot90(image(1))), io.BytesIO()
    lying.save(out, "PNG", exif=exif)
    assert reslab.load_detector(model).detect(out.getvalue()) == reslab.load_detector(model).detect(
        image(1)
    )


def test_boxes_do_not_depend_on_the_threshold(model: Path) -> None:
    """Refinement also averages over less probable boxes, which are not reported."""
    everything = reslab.load_detector(model, threshold=0.05, refine=True).detect(image(3))
    for threshold in (0.3, SHOWN_SCORE, 0.9):
        reported = reslab.load_detector(model, threshold=threshold, refine=True).detect(image(3))
        assert reported == [detection for detection in everything if detection.score >= threshold]
        assert len(reported) < len(everything)
    assert (
        len(reslab.load_detector(model, threshold=0).detect(image(3))) == 20
    )  # the maximum in its settings


def test_options_default_to_the_settings_in_the_file(model: Path, tmp_path: Path) -> None:
    detector = untrained_detector()
    named = detector.search.model_copy(update={"refine": True, "scales": (32, 64)})
    (tmp_path / "other.safetensors").write_bytes(detector_bytes(replace(detector, search=named)))
    assert reslab.load_detector(tmp_path / "other.safetensors").search == named
    assert (
        reslab.load_detector(tmp_path / "other.safetensors", refine=False, scales=[]).search
        == detector.search
    )
    plain, refined, scaled = (
        predictor.detect(image(3))
        for predictor in (
            reslab.load_detector(model),
            reslab.load_detector(model, refine=True),
            reslab.load_detector(model, scales=[32, 64]),
        )
    )
    assert plain != refined != scaled != plain


def test_a_bad_image_yields_an_error_among_the_answers(model: Path, tmp_path: Path) -> None:
    predictor = reslab.load_detector(model)
    good, bad = predictor.detect(image(1)), tmp_path / "missing.jpg"
    answers = list(predictor.each([image(1), bad, b"nothing", image(1)]))
    assert answers[0] == answers[3] == good
    assert [str(answer) for answer in answers if isinstance(answer, BadImage)] == [
        f"{bad}: no such file or directory",
        "the image: not an image in a supported format "
        "(jpeg, png, webp, gif, bmp, tiff, ppm, avif, jp2, tga, qoi, sgi, sun, dds)",
    ]
    with pytest.raises(BadImage, match=r"missing\.jpg"):
        predictor.detect([image(1), bad])
    with pytest.raises(ValueError, match=r"RGB \[H, W, 3\] or grey \[H, W\]"):
        predictor.detect(np.zeros((4, 4, 4), dtype=np.uint8))


def test_the_first_answer_does_not_wait_for_the_last_image(model: Path) -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield image(taken)

    answers = reslab.load_detector(model).each_image(endless())
    first = next(answers)
    assert not isinstance(first, BadImage)
    assert np.array_equal(first.pixels, image(1))
    assert len(first.objects) == len(first.detections)
    assert taken < 12


def test_a_predictor_can_move_to_a_device(model: Path) -> None:
    predictor = reslab.load_detector(model, threshold=0.4)
    moved = predictor.to(torch.device("cpu"))
    assert isinstance(moved, DetectorPredictor)
    assert moved.threshold == 0.4
    assert moved.classes == CLASSES
    assert moved.detect(image(0)) == predictor.detect(image(0))


def test_the_public_function_loads_the_same_detector(model: Path) -> None:
    assert reslab.load_detector(model).detect(image(0)) == reslab.load_detector(model).detect(
        image(0)
    )


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_is_a_probability(model: Path, threshold: float) -> None:
    with pytest.raises(ValueError, match="is not a probability between 0 and 1"):
        reslab.load_detector(model, threshold=threshold)


@pytest.mark.parametrize(
    ("scales", "why"),
    [
        ([64], r"scales \[64\] must be two or more"),
        ([64, 32], "increasing"),
        ([0, 32], "scales cannot be 0"),
    ],
)
def test_invalid_scales_are_refused(model: Path, scales: list[int], why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        reslab.load_detector(model, scales=scales)
    assert "\n" not in str(caught.value)


def test_a_classifier_is_not_a_detector(model: Path, tmp_path: Path) -> None:
    net = build_resnet(cifar_config(8, classes=3), torch.Generator().manual_seed(1)).eval()
    grey = torch.full((3, 1, 1), 120.0)
    file = tmp_path / "classifier.safetensors"
    file.write_bytes(model_bytes(Model(net, CLASSES, Preprocessing(grey, grey / 2), {}, [])))
    with pytest.raises(ValueError, match="`reslab predict`"):
        reslab.load_detector(file)
    with pytest.raises(ValueError, match="`reslab detect`"):
        reslab.load(model)


PIXELS = torch.randint(0, 256, (40, 56, 3), generator=torch.Generator().manual_seed(0)).byte()


def model_file_of(folder: Path, model: Detector) -> Path:
    out = folder / "model.safetensors"
    out.write_bytes(detector_bytes(model))
    return out


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"context": True, "pooling": "align"},
        {"norm": "group"},
        {"trunk": LARGE, "sizes": (32,)},
    ],
)
def test_a_file_holds_the_whole_detector(tmp_path: Path, config: dict[str, object]) -> None:
    search = InferenceConfig(
        shorter=40, longest=60, refine=True, scales=(20, 40), smallest=4, proposals=9
    )
    original = replace(
        detector(search=search, **config),  # pyrefly: ignore[bad-argument-type]
        recipe=short_recipe().model_dump(mode="json"),
        metrics=[{"set": "test", "map_50": 12.5}],
    )
    file = model_file_of(tmp_path, original)
    assert is_detector(file)
    assert is_detector(tmp_path)  # the model file in a run folder
    loaded = load_detector(tmp_path)
    assert sha256_of(loaded.net.state_dict()) == sha256_of(original.net.state_dict())
    assert loaded.net.config == original.net.config
    assert (loaded.classes, loaded.ids, loaded.search) == (original.classes, original.ids, search)
    assert (loaded.recipe, loaded.metrics) == (original.recipe, original.metrics)
    assert torch.equal(loaded.preprocessing.mean, original.preprocessing.mean)
    assert torch.equal(loaded.preprocessing.std, original.preprocessing.std)
    assert not loaded.net.training
    one, other = (detect_objects(model, PIXELS.numpy(), search) for model in (original, loaded))
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)


def test_inference_folds_batch_norm() -> None:
    model = detector()
    fast = prepare_for_inference(model)
    assert norms_of(model.net)
    assert not norms_of(fast.net)
    one, other = (detect_objects(each, PIXELS.numpy(), model.search) for each in (model, fast))
    assert len(one)
    torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-4)


def test_an_image_is_prepared_as_in_training() -> None:
    model = detector()
    prepared = model.preprocess(PIXELS.numpy())
    assert prepared.shape == (1, 3, 40, 56)
    expected = (PIXELS.permute(2, 0, 1).float() - 110) / 55
    torch.testing.assert_close(prepared[0], expected)


def test_files_without_a_detector_are_refused(tmp_path: Path) -> None:
    file = classifier_file(tmp_path)
    assert not is_detector(file)
    with pytest.raises(ValueError, match="a classifier, not a detector; use `reslab predict`"):
        load_detector(file)
    for text, why in ((b"", "not a model file"), (b"{}", "not a model file")):
        (tmp_path / "wrong").write_bytes(text)
        with pytest.raises(ValueError, match=why) as caught:
            load_detector(tmp_path / "wrong")
        assert "\n" not in str(caught.value)
    whole = detector_bytes(detector())
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a model file, or is damaged"):
        load_detector(tmp_path / "cut")


def test_a_file_with_other_weights_is_refused(tmp_path: Path) -> None:
    one, other = detector(), detector(context=True)
    other.net.config = one.net.config
    file = model_file_of(tmp_path, other)
    with pytest.raises(ValueError, match="does not fit its own configuration") as caught:
        load_detector(file)
    assert "\n" not in str(caught.value)


def test_a_detector_moves_to_a_device_with_its_preprocessing() -> None:
    moved = detector().to(torch.device("cpu"))
    assert moved.preprocessing.std.device.type == "cpu"
    assert moved.preprocess(PIXELS.numpy()).device.type == "cpu"


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("classes", "person"),
        ("classes", ["one"]),
        ("ids", []),
        ("ids", ["1"] * len(IDS)),
        ("metrics", None),
        ("search", {"threshold": "high"}),
        ("search", 5),
        ("preprocessing", {"channels": "RGB"}),
        ("blocks", [10**9, 10**9, 10**9]),
        ("blocks", [1]),
        ("width", 10**9),
        ("pooled", 10**9),
        ("sizes", [16.0]),
        ("classes in configuration", 10**9),
    ],
)
def test_a_changed_fact_is_refused_before_anything_is_built(
    tmp_path: Path, key: str, change: object
) -> None:
    content = TensorFile.read(model_file_of(tmp_path, untrained_detector()))
    facts, file = content.facts, tmp_path / "changed.safetensors"
    if key in facts:
        facts[key] = change
    elif key == "blocks":
        facts["detector"]["trunk"]["blocks"] = change
    else:
        facts["detector"][key.partition(" ")[0]] = change
    file.write_bytes(TensorFile(content.tensors, facts).to_bytes())
    with pytest.raises(ValueError, match=f"{file} does not fit its own configuration"):
        load_detector(file)


def test_a_detector_whose_weights_are_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    broken = untrained_detector()
    with torch.no_grad():
        broken.net.regressor.weight[0, 0] = torch.inf
    file = model_file_of(tmp_path, broken)
    with pytest.raises(RuntimeError, match=r"regressor\.weight is infinite or NaN"):
        load_detector(file)


def test_objects_in_a_reduced_image_are_in_pixels_of_its_full_size(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = io.BytesIO()
    Image.fromarray(image(1, 121, 160)).save(encoded, "JPEG")
    predictor = reslab.load_detector(model)
    for module in ("jpeg", "decode"):
        monkeypatch.setattr(f"reslab.data.{module}.MAX_PIXELS", 10_000)
    (seen,) = predictor.each_image([encoded.getvalue()])
    assert isinstance(seen, DetectedImage)
    assert seen.pixels.shape == (61, 80, 3)
    assert seen.objects
    for found, box in zip(seen.objects, seen.detections.boxes.tolist(), strict=True):
        ratios = (160 / 80, 121 / 61) * 2
        assert found.box == pytest.approx([side * by for side, by in zip(box, ratios, strict=True)])
    assert predictor.detect(seen.pixels)[0].box == pytest.approx(seen.detections.boxes[0].tolist())
