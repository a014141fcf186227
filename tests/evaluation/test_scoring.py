"""Protocols on networks whose scores are known, and against slow references."""

import io
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from reslab.data.datasets import EncodedImages, ImagesInMemory
from reslab.data.resize import resize_whole_to_centre
from reslab.evaluation import scoring
from reslab.evaluation.report import build_report, classify, score_set
from reslab.evaluation.scoring import Reading, Scores, ensemble
from reslab.evaluation.views import MultiScale, OneCrop, TenCrop, ViewProtocol
from reslab.models.config import ResNetConfig, imagenet_config
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet


def colour(images: Tensor) -> Tensor:
    """Score images by mean colour: full red is three times as probable as no colour."""
    return images.float().mean((2, 3)) * math.log(3) / 255


@dataclass(frozen=True)
class Pixels:
    """Apply `colour` to windows of a few pixels, one pixel apart."""

    window: int

    def __call__(self, images: Tensor) -> Tensor:
        return colour(images)

    def dense(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images.float(), self.window, stride=1) * math.log(3) / 255


def probabilities(model, images, protocol: ViewProtocol) -> Tensor:
    return score_set(model, images, protocol).log_probabilities.exp()


def black(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def test_ten_crop_by_hand(album) -> None:
    """Red in one corner: (.6, .2, .2) for its crop and the mirror, a third each for the others."""
    image = black(4, 6)
    image[:2, :2, 0] = 255
    scores = probabilities(colour, album([image], [0]), TenCrop(4, 2))
    other = (2 * 0.2 + 8 / 3) / 10
    assert scores[0].tolist() == pytest.approx([(2 * 0.6 + 8 / 3) / 10, other, other])
    # not the softmax of averaged scores
    assert scores[0, 0] != pytest.approx(3**0.2 / (3**0.2 + 2), abs=1e-3)


def test_mirrored_views_by_hand(album) -> None:
    """The network sees only the left column, which is red in the image but not in its mirror."""
    image = black(2, 2)
    image[:, 0, 0] = 255
    scores = probabilities(lambda x: colour(x[..., :1]), album([image], [0]), TenCrop(2, 2))
    assert scores[0, 0] == pytest.approx((0.6 + 1 / 3) / 2)


def test_the_centre_by_hand(album) -> None:
    image = black(5, 8)
    image[1:4, 2:5, 1] = 255
    scores = probabilities(colour, album([image], [1]), OneCrop(5, 3))
    assert scores[0].tolist() == pytest.approx([0.2, 0.6, 0.2])


def test_multi_scale_by_hand(album) -> None:
    """One red pixel of four at side 2; at side 4 the same four, enlarged bilinearly."""
    image = black(2, 2)
    image[0, 0, 0] = 255
    scores = probabilities(Pixels(1), album([image], [0]), MultiScale((2,), flip=True))
    assert scores[0, 0] == pytest.approx((0.6 + 3 / 3) / 4)
    # bilinear from 2 to 4 pixels: weights 1, 3/4, 1/4, 0 along each side, rounded to bytes
    weights = [1, 0.75, 0.25, 0]
    reds = [round(255 * a * b) / 255 for a in weights for b in weights]
    at_4 = sum(3**red / (3**red + 2) for red in reds) / 16
    scores = probabilities(Pixels(1), album([image], [0]), MultiScale((2, 4), flip=False))
    assert scores[0, 0] == pytest.approx((0.4 + at_4) / 2, abs=2e-4)


def plainly_resized(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = (int(width * scale + 1e-9), int(height * scale + 1e-9))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def one(view: np.ndarray) -> Tensor:
    return torch.tensor(np.ascontiguousarray(view)).permute(2, 0, 1)[None]


def slow_ten_crop(model, image: np.ndarray, side: int, size: int) -> Tensor:
    whole = plainly_resized(image, side)
    height, width = whole.shape[:2]
    places = [
        (0, 0), (0, width - size), (height - size, 0), (height - size, width - size),
        (round((height - size) / 2), round((width - size) / 2)),
    ]  # fmt: skip
    softmaxes = []
    for top, left in places:
        crop = whole[top : top + size, left : left + size]
        for view in (crop, crop[:, ::-1]):
            softmaxes.append(model(one(view))[0].double().softmax(0))
    return torch.stack(softmaxes).mean(0)


def slow_multi_scale(model, image: np.ndarray, sides: tuple[int, ...], window: int) -> Tensor:
    """Score each position as a separate crop."""
    means = []
    for side in sides:
        whole = plainly_resized(image, side)
        for view in (whole, whole[:, ::-1]):
            height, width = view.shape[:2]
            softmaxes = [
                model(one(view[top : top + window, left : left + window]))[0].double().softmax(0)
                for top in range(height - window + 1)
                for left in range(width - window + 1)
            ]
            means.append(torch.stack(softmaxes).mean(0))
    return torch.stack(means).mean(0)


def small_model(size: int, resize: int) -> Model:
    config = ResNetConfig(
        stem="imagenet", block="basic", blocks=(1, 1), widths=(8, 16), classes=3, shortcut="B"
    )
    net = build_resnet(config, torch.Generator().manual_seed(3)).eval().requires_grad_(False)
    mean = torch.rand(3, size, size, generator=torch.Generator().manual_seed(4)) * 255
    std = torch.full((3, 1, 1), 60.0)
    return Model(net, ("a", "b", "c"), Preprocessing(mean, std, "BGR", resize, size), {}, [])


def test_ten_crop_against_a_slow_reference(album, photographs) -> None:
    model = small_model(32, 36)
    some = photographs[:3]
    scores = probabilities(model, album(some, [0, 1, 2]), TenCrop(36, 32))
    slow = torch.stack([slow_ten_crop(model, image, 36, 32) for image in some])
    torch.testing.assert_close(scores.double(), slow, rtol=0, atol=1e-5)
    assert (scores - 1 / 3).abs().max() > 0.05  # the network does distinguish them


def test_multi_scale_against_a_slow_reference(album, photographs) -> None:
    """With a network of windows without padding, each position is exactly a crop."""
    small = [image[:12, :17] for image in photographs]
    scores = probabilities(Pixels(7), album(small, [0, 1, 2, 0, 1]), MultiScale((7, 9, 12)))
    slow = torch.stack([slow_multi_scale(colour, image, (7, 9, 12), 7) for image in small])
    torch.testing.assert_close(scores.double(), slow, rtol=0, atol=1e-6)


def test_every_position_of_a_real_network_counts_alike(album, photographs) -> None:
    """Its last map, window by window: each is pooled, classified and put through the softmax."""
    model = small_model(32, 36)
    scores = probabilities(model, album(photographs[1:3], [0, 1]), MultiScale((40,), flip=False))
    for image, mean in zip(photographs[1:3], scores, strict=True):
        shown = model.preprocessing(one(plainly_resized(image, 40)))
        features = model.resnet.stages(model.resnet.stem(shown))[0]  # [16, h, w]
        rows, columns = features.shape[1] - 3, features.shape[2] - 3
        assert min(rows, columns) == 2 < max(rows, columns)
        windows = [features[:, y : y + 4, x : x + 4] for y in range(rows) for x in range(columns)]
        by_hand = [model.resnet.fc(w.mean((1, 2))).double().softmax(0) for w in windows]
        torch.testing.assert_close(mean.double(), torch.stack(by_hand).mean(0), rtol=0, atol=1e-5)


def test_one_scale_without_mirrors_is_one_crop_on_square_images(album) -> None:
    rng = np.random.default_rng(1)
    squares = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (224, 250, 180)]
    net = build_resnet(imagenet_config(18, classes=3), torch.Generator().manual_seed(0)).eval()
    mean = torch.full((3, 224, 224), 120.0)
    preprocessing = Preprocessing(mean, torch.full((3, 1, 1), 60.0), resize=256, size=224)
    model = Model(net.requires_grad_(False), ("a", "b", "c"), preprocessing, {}, [])
    images = album(squares, [0, 1, 2])
    dense = score_set(model, images, MultiScale((224,), flip=False)).log_probabilities
    crop = score_set(model, images, OneCrop(resize=224, size=224)).log_probabilities
    torch.testing.assert_close(dense, crop, rtol=1e-5, atol=1e-5)
    assert classify(model, images, MultiScale((224,), flip=False)).top1_error == (
        classify(model, images, OneCrop(resize=224, size=224)).top1_error
    )


def test_a_set_is_read_as_published_figures_were_measured(album, photographs) -> None:
    """Bicubic, and not turned upright: the image is stored on its side."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(photographs[4]).save(file, "PNG", exif=exif)
    images = replace(album([None], [0]), read=lambda name: file.getvalue())
    seen: list[Tensor] = []

    def model(batch: Tensor) -> Tensor:
        seen.append(batch)
        return colour(batch)

    for reading in (Reading(), Reading("bicubic", as_stored=True)):
        score_set(model, images, OneCrop(36, 32), reading=reading)
    upright = np.ascontiguousarray(np.rot90(photographs[4], 3))
    expected = (
        resize_whole_to_centre(upright, 36, 32),
        resize_whole_to_centre(photographs[4], 36, 32, "bicubic"),
    )
    for batch, pixels in zip(seen, expected, strict=True):
        assert np.array_equal(batch[0].permute(1, 2, 0).numpy(), pixels)
    assert not torch.equal(seen[0], seen[1])


def test_a_set_in_memory_is_a_folder_of_the_same_images(album, photographs) -> None:
    squares = [image[:40, :40] for image in photographs]
    images = torch.stack([one(square)[0] for square in squares])
    labels = [0, 1, 2, 0, 1]
    in_memory = ImagesInMemory("album", images, torch.tensor(labels), ("red", "green", "blue"))
    for protocol in (OneCrop(), OneCrop(36, 32), TenCrop(36, 32), MultiScale((32, 40))):
        model = Pixels(8)
        scores = score_set(model, in_memory, protocol).log_probabilities
        assert torch.equal(
            scores, score_set(model, album(squares, labels), protocol).log_probabilities
        )


def test_results_do_not_depend_on_threads(album, photographs) -> None:
    images = album(photographs, [0, 1, 2, 0, 1])
    scores = [score_set(Pixels(8), images, TenCrop(36, 32), threads=threads) for threads in (1, 3)]
    assert torch.equal(scores[0].log_probabilities, scores[1].log_probabilities)


def test_each_image_is_decoded_once_and_few_at_a_time(album, monkeypatch) -> None:
    """With more images than a range holds, all views and sides come from one decoding."""
    count = scoring.RANGE_FILES + 3
    decoded: list[int] = []
    original = EncodedImages.image

    def counted(self: EncodedImages, index: int, as_stored: bool = False) -> np.ndarray:
        decoded.append(index)
        return original(self, index, as_stored)

    monkeypatch.setattr(EncodedImages, "image", counted)
    images = album([black(4, 5)] * count, [0] * count)
    shown: list[int] = []

    class Counting(Pixels):
        def dense(self, images: Tensor) -> Tensor:
            shown.append(len(images))
            return super().dense(images)

    report = classify(Counting(2), images, MultiScale((4, 6)))
    assert sorted(decoded) == list(range(count))
    assert report.n == count
    assert sum(shown) == 4 * count
    assert max(shown) <= scoring.RANGE_FILES


def test_large_images_are_scored_a_few_at_a_time(album, monkeypatch) -> None:
    monkeypatch.setattr(scoring, "SMALL_CPU_PIXELS", 3 * 20)
    shown: list[int] = []

    def model(images: Tensor) -> Tensor:
        shown.append(len(images))
        return colour(images)

    scores = probabilities(model, album([black(4, 5)] * 7, [0] * 7), OneCrop())
    assert shown == [3, 3, 1]
    assert scores.tolist() == [[pytest.approx(1 / 3)] * 3] * 7


def scores_of(*probabilities: list[float], bad: dict[int, str] | None = None) -> Scores:
    return Scores(torch.tensor(probabilities).log(), bad or {})


def test_the_mean_of_probabilities_by_hand(album) -> None:
    """Each of two members misclassifies one image, their mean none."""
    first = scores_of([0.7, 0.2, 0.1], [0.45, 0.40, 0.15])
    second = scores_of([0.4, 0.5, 0.1], [0.10, 0.80, 0.10])
    mean = ensemble([first, second])
    probabilities_ = mean.log_probabilities.exp().tolist()
    assert probabilities_[0] == pytest.approx([0.55, 0.35, 0.10])
    assert probabilities_[1] == pytest.approx([0.275, 0.60, 0.125])
    images = album([np.zeros((2, 2, 3), np.uint8)] * 2, [0, 1])
    errors = [build_report(scores, images, "").top1_error for scores in (first, second, mean)]
    assert errors == [50.0, 50.0, 0.0]


def test_probabilities_are_averaged_not_scores() -> None:
    """A confident member does not outvote two, as it would if logarithms were averaged."""
    sure, other = scores_of([1 - 1e-12, 1e-12]), scores_of([0.3, 0.7])
    assert ensemble([sure, other, other]).log_probabilities.exp()[0].tolist() == pytest.approx(
        [1.6 / 3, 1.4 / 3]
    )


def test_an_ensemble_of_one_member_is_the_member(album) -> None:
    images = album([np.full((2, 2, 3), 40, np.uint8)], [0])
    alone = score_set(lambda x: x.float().mean((2, 3)), images, OneCrop())
    assert torch.equal(ensemble([alone]).log_probabilities, alone.log_probabilities)


def test_images_that_are_bad_for_a_member_are_left_out() -> None:
    nothing = [float("nan")] * 2
    members = [scores_of([0.5, 0.5], nothing, bad={1: "1.png: damaged"})] * 2
    assert ensemble(members).bad == {1: "1.png: damaged"}
