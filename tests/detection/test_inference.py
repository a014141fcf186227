import gc
from dataclasses import replace
from math import exp

import numpy as np
import pytest
import torch
from tests.detection import references
from tests.detection.small import LARGE, SCENES, detector, same
from torch import Tensor

from reslab.data.boxes.sets import Detections
from reslab.detection.box_ops import REGION_STDS
from reslab.detection.inference import (
    Detector,
    FeatureMap,
    ImageFeatures,
    detect_objects,
    detect_with_ensemble,
    lower_scale,
    postprocess,
)
from reslab.detection.recipe import InferenceConfig

CLASSES = 2


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def close(one: Detections, other: Detections) -> None:
    torch.testing.assert_close(one.boxes, other.boxes)
    torch.testing.assert_close(one.scores, other.scores)
    assert torch.equal(one.labels, other.labels)


def hand_made(search: InferenceConfig, logits: tuple[float, ...], moves: Tensor) -> Detector:
    """Build a detector with one 8-pixel anchor per 2-pixel cell and fixed region outputs.

    Anchors are equally probable, so the first ones that fit are the proposals.
    """
    model = detector(
        classes=CLASSES, sizes=(8,), ratios=(1.0,), search=search,
    )  # fmt: skip
    for layer in (
        model.net.proposals.objectness,
        model.net.proposals.deltas,
        model.net.classifier,
        model.net.regressor,
    ):
        layer.weight.zero_()
        assert layer.bias is not None
        layer.bias.zero_()
    model.net.classifier.bias.copy_(torch.tensor(logits))
    model.net.regressor.bias.copy_(moves.flatten() / torch.tensor(REGION_STDS * CLASSES))
    return replace(model, classes=("cat", "dog"), ids=("1", "2"))


def test_a_hand_made_head_detects_known_boxes_in_pixels_of_the_original() -> None:
    """An image of 41 x 30, resized to 27 x 20; the first anchor, clipped, is the only proposal."""
    search = InferenceConfig(
        shorter=20, longest=40, smallest=0, before=1, proposals=1, threshold=0.1, overlap=0.5
    )
    moves = torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.0, 0.25, np.log(2), 0.0]])
    model = hand_made(search, (0.0, 1.0, 2.0), moves)
    detections = detect_objects(model, image(30, 41), search)
    across, down = 41 / 27, 30 / 20
    # the centre of cell (0, 0) is at 1 1: its anchor, -3 -3 5 5, is clipped to 0 0 5 5
    width, height = 5 * across, 5 * down
    cat = [0.5 * width, 0, 1.5 * width, height]
    dog = [0, 0.25 * height, 1.5 * width, 1.25 * height]
    assert detections.labels.tolist() == [1, 0]
    torch.testing.assert_close(detections.boxes, torch.tensor([dog, cat]))
    total = 1 + exp(1) + exp(2)
    assert detections.scores.tolist() == pytest.approx([exp(2) / total, exp(1) / total])


@pytest.mark.parametrize("height", [29, 30, 31, 57])
@pytest.mark.parametrize("width", [29, 43, 58, 64])
def test_a_region_of_the_whole_image_covers_all_of_it_at_any_size(height: int, width: int) -> None:
    """Boxes of unbounded growth are clipped to exactly the borders of the image."""
    search = InferenceConfig(
        shorter=20, longest=35, smallest=0, before=1, proposals=1, threshold=0.3
    )
    model = hand_made(search, (0.0, 9.0, 0.0), torch.tensor([[0.0, 0, 9, 9], [0.0] * 4]))
    detections = detect_objects(model, image(height, width), search)
    assert detections.boxes.tolist() == [[0, 0, width, height]]


def test_detections_are_thresholded_suppressed_and_limited() -> None:
    """Three regions and two classes: score threshold, suppression within a class, limit."""
    places = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [20, 20, 30, 30]])
    places = places[:, None].expand(3, 2, 4)
    probabilities = torch.tensor([[0.1, 0.6, 0.3], [0.05, 0.35, 0.6], [0.9, 0.05, 0.05]])
    search = InferenceConfig(threshold=0.05, overlap=0.5)
    detections = postprocess(probabilities, places, search)
    # 0.05 is not above the threshold; 0.35 is suppressed by 0.6, 0.3 by 0.6 (IoU 0.6)
    assert detections.labels.tolist() == [0, 1]
    torch.testing.assert_close(detections.scores, torch.tensor([0.6, 0.6]))
    assert detections.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 6]]
    loose = postprocess(probabilities, places, search.with_changes({"overlap": 0.6}))
    torch.testing.assert_close(loose.scores, torch.tensor([0.6, 0.6, 0.35, 0.3]))
    assert len(postprocess(probabilities, places, search.with_changes({"threshold": 0.04}))) == 4
    assert len(postprocess(probabilities, places, search.with_changes({"most": 1}))) == 1
    assert postprocess(
        probabilities, places, search.with_changes({"threshold": 0.7})
    ).boxes.shape == (
        0,
        4,
    )


def reference(model: Detector, pixels: np.ndarray, search: InferenceConfig) -> Detections:
    """Detect with regions one at a time: pool by plain loops, classify, refine, suppress, vote."""
    net, view = model.net, ImageFeatures(model, pixels, search)
    height, width = pixels.shape[:2]
    image_map = view.map_at(search.shorter)

    def features(box: Tensor) -> Tensor:
        pooled = references.roi_pool(
            image_map.features, (box * image_map.ratio)[None], torch.tensor([0]), net.config.pooled,
            net.config.stride,
        )  # fmt: skip
        return net.stages[-1](pooled).mean((2, 3))

    def classify(box: Tensor) -> tuple[Tensor, Tensor]:
        region = features(box)
        if net.config.context:
            region = torch.cat([region, features(torch.tensor([0.0, 0, width, height]))], 1)
        scores = net.classifier(region)[0].softmax(0)
        deltas = net.regressor(region).view(-1, 4) * torch.tensor(REGION_STDS)
        middle, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        middle = middle + deltas[:, :2] * sides
        sides = sides * deltas[:, 2:].exp()
        places = torch.cat([middle - sides / 2, middle + sides / 2], 1)
        edges = torch.tensor([width, height, width, height])
        return scores, torch.minimum(places.clamp(min=0), edges)

    outputs = [classify(box) for box in view.proposals()]
    if search.refine:
        moved = [places[scores[1:].argmax()] for scores, places in outputs]
        outputs += [classify(box) for box in moved if min(box[2] - box[0], box[3] - box[1]) >= 1]
    rows = []
    for label in range(net.config.classes):
        candidates = [
            (scores[label + 1].item(), places[label])
            for scores, places in outputs
            if scores[label + 1] > search.threshold
        ]
        if not candidates:
            continue
        boxes = torch.stack([box for _, box in candidates])
        selected = references.nms(
            boxes, torch.tensor([score for score, _ in candidates]), search.overlap
        )
        for index in selected:
            score, box = candidates[index]
            if search.refine:
                same = [
                    (weight, other)
                    for weight, other in candidates
                    if references.iou(box.tolist(), other.tolist()) >= 0.5
                ]
                total = sum(weight for weight, _ in same)
                box = sum((weight * other for weight, other in same), torch.zeros(4)) / total
            rows.append((score, label, box))
    rows = sorted(rows, key=lambda row: -row[0])[: search.most]
    return Detections(
        torch.stack([box for _, _, box in rows]),
        torch.tensor([score for score, _, _ in rows]),
        torch.tensor([label for _, label, _ in rows]),
    )


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("context", [False, True])
def test_against_regions_one_at_a_time(refine: bool, context: bool) -> None:
    search = InferenceConfig(
        shorter=40, longest=96, smallest=3, before=200, proposals=12, threshold=0.12, refine=refine
    )
    model = detector(search=search, context=context, sure=40, pooled=4)
    pixels = SCENES.test.image(1)[5:80, :111]
    detections, expected = detect_objects(model, pixels, search), reference(model, pixels, search)
    assert len(detections) > 4
    assert detections.labels.tolist() == expected.labels.tolist()
    torch.testing.assert_close(detections.scores, expected.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(detections.boxes, expected.boxes, rtol=1e-4, atol=1e-2)


def test_refinement_classifies_moved_boxes_again_and_adds_them() -> None:
    """Every box moves by half its width, and the refined boxes by as much again."""
    search = InferenceConfig(
        shorter=40, longest=40, smallest=4, before=1, proposals=1, threshold=0.5, overlap=0.9
    )
    model = hand_made(search, (0.0, 9.0, 0.0), torch.tensor([[1.0, 0, 0, 0], [0.0] * 4]))
    once = detect_objects(model, image(40, 40), search)
    torch.testing.assert_close(once.boxes, torch.tensor([[5.0, 0, 10, 5]]))
    again = detect_objects(model, image(40, 40), search.with_changes({"refine": True}))
    torch.testing.assert_close(
        again.boxes, torch.tensor([[5.0, 0, 10, 5], [10, 0, 15, 5]]), rtol=1e-4, atol=1e-4
    )


def test_voting_is_the_mean_by_score_of_overlapping_boxes() -> None:
    """Boxes of one class with IoU 0.8, 0.6 and 0 with the best box, and one of another class."""
    places = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 6, 10], [50, 50, 60, 60]])
    places = places[:, None].expand(4, 2, 4).clone()
    probabilities = torch.tensor([[0.1, 0.8, 0.0], [0.3, 0.4, 0.3], [0.8, 0.2, 0], [0.5, 0.5, 0]])
    search = InferenceConfig(threshold=0.1, overlap=0.3, refine=True)
    detections = postprocess(probabilities, places, search)
    assert detections.labels.tolist() == [0, 0, 1]
    torch.testing.assert_close(detections.scores, torch.tensor([0.8, 0.5, 0.3]))
    width = (0.8 * 10 + 0.4 * 10 + 0.2 * 6) / 1.4
    height = (0.8 * 10 + 0.4 * 8 + 0.2 * 10) / 1.4
    expected = [[0, 0, width, height], [50, 50, 60, 60], [0, 0, 10, 8]]
    torch.testing.assert_close(detections.boxes, torch.tensor(expected))


def test_the_two_scales_at_which_a_region_is_closest_to_224_pixels() -> None:
    """With the paper's scales, for an image with a shorter side of 500 pixels."""
    ratios = torch.tensor([200.0, 400, 600, 800, 1000]) / 500
    sides = [20.0, 120, 130, 180, 200, 300, 400, 490]

    def by_hand(side: float) -> int:
        away = [abs(np.log(side * ratio / 224)) for ratio in ratios.tolist()]
        best = min(range(5), key=away.__getitem__)
        neighbours = [at for at in (best - 1, best + 1) if 0 <= at < 5]
        return min(best, min(neighbours, key=away.__getitem__))

    boxes = torch.tensor([[3.0, 4, 3 + side / 2, 4 + side * 2] for side in sides])
    assert lower_scale(boxes, ratios, 224).tolist() == [by_hand(side) for side in sides]
    assert lower_scale(boxes, ratios, 224).tolist() == [3, 3, 3, 2, 1, 1, 0, 0]
    empty = torch.tensor([[5.0, 5, 5, 5]])
    assert lower_scale(empty, ratios, 224).tolist() == [3]


def test_features_of_two_scales_are_merged_by_their_maximum() -> None:
    search = InferenceConfig(shorter=48, longest=96, smallest=4, proposals=8, scales=(24, 48, 96))
    model = detector(search=search)
    view = ImageFeatures(model, image(50, 60), search)
    boxes = torch.tensor([[1.0, 2, 9, 12], [0, 0, 60, 50], [20, 5, 50, 49], [10, 10, 12, 13]])
    side = model.net.config.pooled * model.net.config.stride
    assert side == 16
    first = lower_scale(boxes, torch.tensor([0.48, 0.96, 1.92]), side).tolist()
    assert set(first) == {0, 1}
    features_of_all = view.region_features(boxes)
    for box, at, features in zip(boxes, first, features_of_all, strict=True):
        pair = [
            model.net.pool(
                (image_map := view.map_at(search.scales[at + turn])).features,
                box[None] * image_map.ratio,
            )
            for turn in (0, 1)
        ]
        assert not torch.equal(*pair)
        expected = model.net.region_features(torch.maximum(*pair))[0]
        torch.testing.assert_close(features, expected)


def test_equal_maps_at_two_scales_equal_one_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    search = InferenceConfig(shorter=48, longest=96, smallest=4, proposals=30)
    model, pixels = detector(search=search), image(50, 70)
    single = detect_objects(model, pixels, search)
    compute_map = ImageFeatures._compute_map

    def alike(self: ImageFeatures, shorter: int) -> FeatureMap:
        return compute_map(self, 48)

    monkeypatch.setattr(ImageFeatures, "_compute_map", alike)
    two = detect_objects(model, pixels, search.with_changes({"scales": (47, 48)}))
    assert len(single) > 3
    close(two, single)


def test_several_scales_change_the_detections() -> None:
    search = InferenceConfig(shorter=48, longest=96, smallest=4, proposals=30)
    model, pixels = detector(search=search), SCENES.test.image(0)
    one = detect_objects(model, pixels, search)
    two = detect_objects(model, pixels, search.with_changes({"scales": (32, 64)}))
    assert not same(one, two)


def test_an_ensemble_of_a_detector_and_itself_changes_nothing() -> None:
    model, pixels = detector(), image(47, 71)
    for changes in ({}, {"refine": True}, {"scales": (32, 64)}):
        search = model.search.with_changes(changes)
        one = detect_objects(model, pixels, search)
        assert len(one) > 3
        close(detect_with_ensemble([model, model], pixels, search), one)


def test_an_ensemble_averages_the_outputs_for_the_proposals_of_both() -> None:
    one, other = detector(seed=3, sure=20), detector(seed=4, sure=20)
    search = one.search.with_changes({"threshold": 0.0, "overlap": 1.0, "most": 10_000})
    pixels = image(47, 71)
    views = [ImageFeatures(model, pixels, search) for model in (one, other)]
    boxes = torch.cat([view.proposals() for view in views])
    (p, q), (a, b) = zip(*(view.classify_regions(boxes) for view in views), strict=True)
    expected = postprocess((p + q) / 2, (a + b) / 2, search)
    assert len(expected) > 200
    close(detect_with_ensemble([one, other], pixels, search), expected)
    close(
        detect_with_ensemble([other, one], pixels, search).take(torch.arange(5)),
        expected.take(torch.arange(5)),
    )


SHAPES = [(1, 1), (1, 90), (90, 1), (2, 2), (3, 200), (17, 16)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("trunk", ["cifar", "imagenet"])
def test_images_of_any_size(shape: tuple[int, int], trunk: str) -> None:
    model = detector(trunk=LARGE, sizes=(32, 64)) if trunk == "imagenet" else detector()
    for changes in ({"smallest": 0}, {"smallest": 0, "refine": True, "scales": (16, 48)}):
        search = model.search.with_changes(changes)
        detections = detect_objects(model, image(*shape), search)
        height, width = shape
        assert detections.boxes.shape == (len(detections), 4)
        assert detections.boxes.isfinite().all()
        assert (detections.boxes >= 0).all()
        assert (detections.boxes <= torch.tensor([width, height, width, height])).all()


def test_without_proposals_there_are_no_detections() -> None:
    model = detector()
    for changes in ({}, {"refine": True}, {"scales": (32, 64)}):
        search = model.search.with_changes({"smallest": 1000, **changes})
        detections = detect_objects(model, image(40, 40), search)
        assert (detections.boxes.shape, detections.scores.shape, detections.labels.dtype) == (
            (0, 4), (0,), torch.int64,
        )  # fmt: skip


@pytest.mark.parametrize("context", [False, True])
def test_no_regions_to_classify(context: bool) -> None:
    model = detector(context=context)
    view = ImageFeatures(model, image(40, 40), model.search)
    probabilities, places = view.classify_regions(torch.zeros(0, 4))
    assert (probabilities.shape, places.shape) == ((0, 11), (0, 10, 4))


@pytest.mark.parametrize(
    "where", ["stem.0.conv", "proposals.deltas", "proposals.objectness", "classifier", "regressor"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinite_weights_are_an_error(where: str, value: float) -> None:
    model = detector()
    weight = model.net.get_parameter(f"{where}.weight")
    weight[(0,) * weight.dim()] = value
    with pytest.raises(RuntimeError, match="its weights are unusable"):
        detect_objects(model, image(40, 50), model.search)


def test_an_images_features_are_freed_at_once() -> None:
    """Feature maps of large images must not live until the next garbage collection."""
    model = detector()
    gc.collect()
    gc.disable()
    try:
        detect_objects(model, image(40, 50), model.search)
        left = [item for item in gc.get_objects() if type(item) in (ImageFeatures, FeatureMap)]
    finally:
        gc.enable()
    assert not left
