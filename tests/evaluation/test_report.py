import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from reslab.data.datasets import ImagesInMemory
from reslab.evaluation.report import Report, build_report, classify, wilson, wrong_in_top
from reslab.evaluation.scoring import RANGE_IMAGES, Scores


def coded(count: int, classes: int) -> ImagesInMemory:
    """Return images whose first pixel is their label, the second whether a net should get it."""
    labels = torch.arange(count) % classes
    images = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = labels
    return ImagesInMemory("test", images, labels, tuple(str(c) for c in range(classes)))


def reader(images: torch.Tensor, classes: int = 10) -> torch.Tensor:
    """Read the label from each image, but score labels 0 and 1 wrongly by one."""
    label = images[:, 0, 0, 0].long()
    return torch.nn.functional.one_hot(torch.where(label < 2, label + 1, label), classes).float()


@pytest.mark.parametrize("count", [10, 10 * RANGE_IMAGES, RANGE_IMAGES + 4, 3 * RANGE_IMAGES - 8])
def test_each_image_counts_once(count: int) -> None:
    scored = 0

    def model(images: torch.Tensor) -> torch.Tensor:
        nonlocal scored
        scored += len(images)
        return reader(images)

    report = classify(model, coded(count, 10))
    assert scored == report.n == count
    assert report.top1_error == pytest.approx(20.0)
    right = math.log(9 + math.e) - 1
    wrong = math.log(9 + math.e)
    assert report.loss == pytest.approx(0.8 * right + 0.2 * wrong, rel=1e-5)


def test_five_classes_or_fewer_have_no_top5_error() -> None:
    report = classify(lambda x: reader(x, 3), coded(9, 3))
    assert (report.top5_error, report.top5_interval) == (None, None)
    assert report.top1_error == pytest.approx(100 * 6 / 9)
    assert "top-5" not in str(report)
    assert classify(lambda x: reader(x, 5), coded(9, 5)).top5_error is None


def test_six_classes_have_a_top5_error() -> None:
    """Equal scores rank the classes by index, so only the label 5 is not among the first five."""
    report = classify(lambda x: torch.zeros(len(x), 6), coded(12, 6))
    assert report.top5_error == pytest.approx(100 * 2 / 12)
    assert "top-5 error 16.67 %" in str(report)


def test_a_report_names_its_protocol_and_count() -> None:
    assert "one-crop, n=10" in str(classify(reader, coded(10, 10)))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        classify(reader, coded(0, 10))


def test_undecodable_images_are_reported_and_left_out(album) -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    events: list[dict] = []
    images = album([red, None, red, red], [0, 0, 1, 0])
    report = classify(lambda x: x.float().mean((2, 3)), images, on_event=events.append)
    assert (report.n, report.skipped) == (3, 1)
    assert report.top1_error == pytest.approx(100 / 3)
    (bad,) = [row["text"] for row in events if row["kind"] == "bad"]
    assert bad.startswith("1.png: ")
    assert "1 skipped" in str(report)
    assert report.as_dict()["skipped"] == 1


def test_a_set_of_only_bad_images_is_an_error(album) -> None:
    with pytest.raises(ValueError, match="no image of album can be decoded"):
        classify(reader, album([None, None], [0, 1]))


def test_class_by_class() -> None:
    """Labels 0 and 1 are mistaken for 1 and 2, all others are correct."""
    report = classify(lambda x: reader(x, 4), coded(9, 4))
    assert [row["class"] for row in report.per_class] == ["0", "1", "2", "3"]
    assert [row["n"] for row in report.per_class] == [3, 2, 2, 2]
    assert [row["top1_error"] for row in report.per_class] == [100, 100, 0, 0]
    assert [row["taken_for"] for row in report.per_class] == [[["1", 3]], [["2", 2]], [], []]
    assert report.confusion == [[0, 3, 0, 0], [0, 0, 2, 0], [0, 0, 2, 0], [0, 0, 0, 2]]


def test_precision_recall_and_f1_by_hand() -> None:
    """Class 0 is never predicted; class 1 takes the images of 0; class 2 takes those of 1."""
    report = classify(lambda x: reader(x, 4), coded(9, 4))
    assert [row["precision"] for row in report.per_class] == [None, 0, 50, 100]
    assert [row["recall"] for row in report.per_class] == [0, 0, 100, 100]
    assert [row["f1"] for row in report.per_class] == [0, 0, pytest.approx(200 / 3), 100]
    assert report.macro() == {
        "precision": 37.5, "recall": 50.0, "f1": pytest.approx((200 / 3 + 100) / 4),
    }  # fmt: skip


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 2**31))
def test_precision_recall_and_f1_against_scikit_learn(classes: int, n: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=rng)
    scores = torch.rand(n, classes, generator=rng)
    names = tuple(map(str, range(classes)))
    images = ImagesInMemory("test", torch.zeros(n, 3, 2, 2, dtype=torch.uint8), labels, names)
    report = build_report(Scores(scores.log_softmax(1), {}), images, "one-crop")
    present = sorted(set(labels.tolist()))
    expected = precision_recall_fscore_support(
        labels, scores.argmax(1), labels=present, zero_division=0
    )
    for name, numbers in zip(("precision", "recall", "f1"), expected, strict=False):
        ours = [row[name] or 0 for row in report.per_class]  # type: ignore[literal-required]
        percent = 100 * np.asarray(numbers, np.float64)
        assert ours == pytest.approx(percent)
        macro = report.macro()
        assert macro is not None
        assert macro[name] == pytest.approx(percent.mean())


def test_classes_without_images_have_no_error(album) -> None:
    images = album([np.zeros((2, 2, 3), np.uint8)], [2], ids=("n1", "n2", "n3"))
    (row,) = classify(lambda x: x.float().mean((2, 3)), images).per_class
    assert (row["class"], row["id"], row["n"], row["top1_error"]) == ("blue", "n3", 1, 100.0)


def test_a_matrix_is_for_few_classes_and_rows_for_a_thousand() -> None:
    assert classify(lambda x: reader(x, 101), coded(9, 101)).confusion is None
    assert len(classify(lambda x: reader(x, 1000), coded(9, 1000)).per_class) == 9
    assert classify(lambda x: reader(x, 1001), coded(9, 1001)).per_class == ()


def test_an_image_with_nan_scores_has_no_prediction() -> None:
    report = classify(lambda x: reader(x) * torch.nan, coded(20, 10))
    assert (report.top1_error, report.top5_error) == (100.0, 100.0)
    assert sum(map(sum, report.confusion or [])) == 0


def test_a_report_comes_back_from_json() -> None:
    report = classify(reader, coded(30, 10))
    assert list(report.as_dict())[:6] == [
        "set", "protocol", "n", "top1_error", "top5_error", "loss",
    ]  # fmt: skip
    again = Report(**json.loads(json.dumps(report.as_dict() | report.details())))
    assert str(again) == str(report)
    assert again.details() == report.details()
    assert report.top1_interval == pytest.approx((9.51, 37.31), abs=0.005)  # 6 of 30


def test_older_reports_are_read() -> None:
    core = {"set": "test", "protocol": "one-crop", "n": 10, "loss": 0.5}
    old = Report(**core, top1_error=20.0, top5_error=0.0)
    assert str(old) == "test: top-1 error 20.00 %, top-5 error 0.00 %  (one-crop, n=10)"


def test_a_model_with_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="has 10 outputs, but the set has 3 classes"):
        classify(reader, coded(9, 3))


def test_by_hand() -> None:
    scores = torch.tensor([[3.0, 1, 2], [1, 2, 3], [2, 3, 1]])
    labels = torch.tensor([0, 0, 2])
    assert wrong_in_top(scores, labels, 1).tolist() == [False, True, True]
    assert wrong_in_top(scores, labels, 2).tolist() == [False, True, True]
    assert wrong_in_top(scores, torch.tensor([2, 1, 0]), 2).tolist() == [False, False, False]
    assert not wrong_in_top(scores, labels, 3).any()


@given(st.integers(1, 6), st.integers(0, 2**31))
def test_against_torch_where_scores_differ(k: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    scores = torch.stack([torch.randperm(7, generator=rng).float() for _ in range(20)])
    labels = torch.randint(0, 7, (20,), generator=rng)
    expected = ~(scores.topk(k, dim=1).indices == labels[:, None]).any(1)
    assert torch.equal(wrong_in_top(scores, labels, k), expected)


def test_a_net_with_equal_scores_is_correct_only_by_chance() -> None:
    scores = torch.zeros(10, 10)
    assert wrong_in_top(scores, torch.arange(10), 1).sum() == 9
    assert wrong_in_top(scores, torch.arange(10), 5).sum() == 5


def test_nan_scores_are_wrong() -> None:
    assert wrong_in_top(torch.full((2, 3), float("nan")), torch.tensor([0, 1]), 3).all()


@pytest.mark.parametrize(
    ("wrong", "n", "interval"),
    [
        (0, 10, (0.0, 27.75)),
        (1, 10, (1.79, 40.42)),
        (5, 10, (23.66, 76.34)),
        (10, 10, (72.25, 100.0)),
        (50, 100, (40.38, 59.62)),
        (1, 1, (20.65, 100.0)),
    ],
)
def test_wilsons_interval_by_hand(wrong: int, n: int, interval: tuple[float, float]) -> None:
    assert wilson(wrong, n) == pytest.approx(interval, abs=0.005)


@given(st.integers(1, 5000), st.data())
def test_wilsons_interval_contains_the_rate_and_is_symmetric(n: int, data) -> None:
    wrong = data.draw(st.integers(0, n))
    low, high = wilson(wrong, n)
    assert 0 <= low <= 100 * wrong / n + 1e-9
    assert 100 >= high >= 100 * wrong / n - 1e-9
    assert wilson(n - wrong, n) == pytest.approx((100 - high, 100 - low))
