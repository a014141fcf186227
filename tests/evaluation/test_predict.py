import io
import math
import warnings
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models.kinds import KINDS, perturbed
from torch import Tensor, nn

from reslab.api.models import load
from reslab.data.decode import BadImage
from reslab.data.digits import load_digits
from reslab.evaluation import predict
from reslab.evaluation.predict import BATCH_IMAGES, Prediction, Predictor
from reslab.evaluation.scoring import resize_to_sizes
from reslab.evaluation.views import TenCrop
from reslab.models.config import ResNetConfig, cifar_config, imagenet_config
from reslab.models.model_file import Model, model_bytes
from reslab.models.preprocessing import Preprocessing, minus_mean
from reslab.models.resnet import ResNet, build_resnet

COLOURS = ("red", "green", "blue")


class Brightness(ResNet):
    """Score three classes by the mean red, green and blue, divided by 100."""

    def __init__(self) -> None:
        # one stage: no image has too small a feature map
        super().__init__(
            ResNetConfig(
                stem="cifar", block="basic", blocks=(1,), widths=(4,), classes=3, shortcut="A"
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) / 100

    def dense(self, images: Tensor, window: int) -> Tensor:
        return images / 100


def colours(size: int | None = None, **changes) -> Predictor:
    """Return a predictor whose predictions can be computed by hand."""
    preprocessing = Preprocessing(
        torch.zeros(3, 1, 1), torch.ones(3, 1, 1), resize=size and size + 2, size=size
    )
    model = Model(Brightness(), COLOURS, replace(preprocessing, **changes), {}, [])
    return Predictor(model)


def plain(red: int, green: int, blue: int, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.full((*size, 3), (red, green, blue), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def softmax(*scores: float) -> list[float]:
    total = sum(map(math.exp, scores))
    return [math.exp(score) / total for score in scores]


def test_probabilities_worked_by_hand_best_first() -> None:
    expected = softmax(1.0, 2.5, 0.5)
    predictions = colours().predict(plain(100, 250, 50))
    assert [prediction.name for prediction in predictions] == ["green", "red", "blue"]
    assert [prediction.probability for prediction in predictions] == pytest.approx(
        [expected[1], expected[0], expected[2]], rel=1e-5
    )
    assert str(predictions[0]) == f" {100 * expected[1]:.1f} %  green"


def test_a_network_for_larger_images_warns_once() -> None:
    net = build_resnet(imagenet_config(18, classes=3)).eval()
    predictor = Predictor(Model(net, COLOURS, minus_mean(torch.zeros(3, 1, 1)), {}, []))
    images = [plain(100, 250, 50, (40, 32))] * 2
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        predictor.predict(images, top=1, protocol="one-crop")
        predictor.predict(images, top=1, protocol="one-crop")
    assert [str(warning.message)[:57] for warning in caught] == [
        "images with a side of 32 pixels leave a feature map of 1x1"[:57]
    ]


def test_the_model_files_preprocessing_decides() -> None:
    mean = torch.tensor([0.0, 250.0, 0.0]).reshape(3, 1, 1)
    image = plain(100, 250, 50)
    assert colours(mean=mean).predict(image)[0].name == "red"
    assert colours(channels="BGR").predict(plain(200, 0, 0))[0].name == "blue"
    std = torch.tensor([1.0, 100.0, 1.0]).reshape(3, 1, 1)
    assert colours(std=std).predict(image)[0].name == "red"


def test_only_the_centre_crop_counts() -> None:
    """Shorter side 10, as the image has already, centre 8: a green frame is cropped off."""
    pixels = plain(0, 255, 0, (10, 30))
    pixels[1:9, 11:19] = (255, 0, 0)
    predictions = colours(size=8).predict(pixels)
    assert predictions[0].name == "red"
    assert predictions[0].probability == pytest.approx(softmax(2.55, 0, 0)[0], rel=1e-5)


def test_ten_crop_is_the_mean_of_ten_probabilities() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    sized = resize_to_sizes(pixels, {10: None}, "picture")
    by_hand = torch.stack([
        (view.of(sized[10]).float().mean((1, 2)) / 100).softmax(0)
        for view in TenCrop(10, 8).views()
    ]).mean(0)  # fmt: skip
    predictions = {
        prediction.name: prediction.probability
        for prediction in colours(8).predict(pixels, protocol="ten-crop")
    }
    assert [predictions[name] for name in COLOURS] == pytest.approx(by_hand.tolist(), rel=1e-5)


def test_multi_scale_averages_over_positions() -> None:
    """Left half red, right half green: the mean of two softmaxes, not the softmax of the mean."""
    pixels = plain(200, 0, 0, (8, 8))
    pixels[:, 4:] = (0, 200, 0)
    predictions = colours(8).predict(pixels, protocol="multi-scale:8,no-flip")
    high, _, low = softmax(2, 0, 0)
    assert {prediction.name: prediction.probability for prediction in predictions} == pytest.approx(
        {"red": (high + low) / 2, "green": (high + low) / 2, "blue": low}, rel=1e-5
    )
    # equal probabilities: the lower index first
    assert [prediction.name for prediction in predictions] == ["red", "green", "blue"]


def test_an_image_may_be_a_file_bytes_an_array_or_from_pillow(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    file = tmp_path / "picture.png"
    file.write_bytes(png(pixels))
    model = colours()
    expected = model.predict(pixels)
    for image in (file, str(file), png(pixels), Image.fromarray(pixels)):
        assert model.predict(image) == expected
    assert model.predict([pixels, file]) == [expected, expected]
    assert model.predict([]) == []


def test_a_pillow_image_is_rotated_upright_and_converted_to_rgb() -> None:
    pixels = plain(0, 200, 0, (8, 12))
    pixels[:, :6] = (200, 0, 0)  # left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees: the left becomes the top
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", exif=exif)
    opened = Image.open(io.BytesIO(data.getvalue()))
    model = colours(6)
    assert model.predict(opened) == model.predict(data.getvalue())
    grey = Image.new("L", (8, 8), 77)
    assert colours().predict(grey) == colours().predict(plain(77, 77, 77))
    with pytest.raises(BadImage, match="32-bit grey"):
        colours().predict(Image.new("F", (8, 8), 0.5))


def test_sizes_may_differ_and_answers_keep_their_places() -> None:
    sizes = [(8, 8), (6, 9), (8, 8), (20, 8), (6, 9)]
    images = [plain(10 * k, 200 - 9 * k, 5, size) for k, size in enumerate(sizes * 15)]
    model = colours()
    together = model.predict(images, top=3)
    for predictions, image in zip(together, images, strict=True):
        for one, other in zip(predictions, model.predict(image), strict=True):
            assert one.name == other.name
            assert one.probability == pytest.approx(other.probability, rel=1e-5)


def test_top_is_at_most_the_number_of_classes() -> None:
    assert len(colours().predict(plain(1, 2, 3), top=2)) == 2
    predictions = colours().predict(plain(1, 2, 3), top=50)
    assert len(predictions) == 3
    assert sum(prediction.probability for prediction in predictions) == pytest.approx(1)
    with pytest.raises(ValueError, match="top=0 must be at least 1"):
        colours().predict(plain(1, 2, 3), top=0)


def test_ids_default_to_the_names() -> None:
    model = colours().model
    assert Predictor(model).predict(plain(9, 0, 0))[0].id == "red"
    predictions = Predictor(replace(model, ids=("n1", "n2", "n3"))).predict(plain(9, 0, 0))
    assert (predictions[0].name, predictions[0].id) == ("red", "n1")


def test_a_bad_image_yields_an_error_among_the_answers(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    images = [plain(9, 0, 0), bad, tmp_path / "missing.png", tmp_path, plain(0, 0, 9)]
    predictions = list(colours().each(images, top=1))
    assert [answer[0].name for answer in predictions if isinstance(answer, list)] == ["red", "blue"]
    assert [type(answer) for answer in predictions] == [list, BadImage, BadImage, BadImage, list]
    assert str(predictions[1]).startswith(f"{bad}: not an image")
    assert str(predictions[2]) == f"{tmp_path / 'missing.png'}: no such file or directory"
    with pytest.raises(BadImage, match=r"bad\.jpg"):
        colours().predict(images)


def test_a_truncated_pillow_image_is_bad() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    opened = Image.open(io.BytesIO(png(noise)[:9000]))
    (answer,) = colours().each([opened])
    assert str(answer).startswith("the image: ")
    assert isinstance(answer, BadImage)


def test_an_image_that_would_fill_the_memory_is_bad(tmp_path: Path) -> None:
    file = tmp_path / "thin.png"
    file.write_bytes(png(plain(9, 0, 0, (3, 153))))
    predictions = list(colours(6).each([file, plain(9, 0, 0, (3, 150))], top=1))
    assert (
        str(predictions[0])
        == f"{file}: 153 x 3 pixels is 51 times as long as high; the limit is 50"
    )
    assert isinstance(predictions[1], list)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8)), np.zeros((8, 8, 3)), np.zeros((3, 8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)  # fmt: skip
def test_an_array_with_another_shape_or_type_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"RGB \[H, W, 3\] or grey \[H, W\], not"):
        colours().predict(array)


def test_nan_scores_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="scores are NaN"):
        colours(mean=torch.full((3, 1, 1), torch.nan)).predict(plain(1, 2, 3))


def test_predictions_follow_weights_that_change() -> None:
    """A copy of the network for inference must not outlive the weights that it was made from."""
    model = Model(perturbed(KINDS["batch norm"]), COLOURS, minus_mean(torch.zeros(3, 1, 1)), {}, [])
    predictor = Predictor(model)
    image = plain(100, 250, 50, (16, 16))
    predictor.predict(image)
    with torch.no_grad():
        model.resnet.fc.weight.zero_()
        model.resnet.fc.bias.copy_(torch.tensor([0.0, 0.0, math.log(2)]))
    assert [p.probability for p in predictor.predict(image)] == pytest.approx([0.5, 0.25, 0.25])
    with torch.inference_mode():  # such tensors have no versions
        unversioned = perturbed(KINDS["batch norm"])
        assert Predictor(replace(model, net=unversioned)).predict(image)


def test_an_unknown_protocol_is_refused_immediately() -> None:
    with pytest.raises(ValueError, match="did you mean 'ten-crop'"):
        colours(8).each([], protocol="tencrop")


def test_a_net_with_a_mean_image_gets_its_own_size_and_says_so_once() -> None:
    """Resized to the net's side, then cropped: a wide image loses its left and right ends."""
    model = colours(mean=torch.zeros(3, 8, 8))
    pixels = plain(0, 255, 0, (16, 48))
    pixels[:, 16:32] = (255, 0, 0)
    with pytest.warns(UserWarning, match="takes only 8x8 images") as warned:
        predictions = list(model.each([pixels] * 70, top=1))
    assert len(warned) == 1
    assert {answer[0].name for answer in predictions if isinstance(answer, list)} == {"red"}
    model.predict(plain(1, 2, 3))  # of its size: there is no warning, which would be an error here


def test_large_images_do_not_wait_for_the_whole_list() -> None:
    """Only a bounded number of images is read ahead of the predictions."""
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield plain(9, 0, 0)

    answers = colours().each(endless(), top=1)
    assert all(isinstance(answer, list) for answer in islice(answers, 100))
    assert read < 300


def test_the_next_images_are_decoded_while_the_network_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computing, decoded, seen = Event(), Event(), []

    def load(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] >= BATCH_IMAGES:  # not in the first batch
            assert computing.wait(timeout=10)
            decoded.set()
        return image

    class Waiting(Brightness):
        def forward(self, images: Tensor) -> Tensor:
            computing.set()
            seen.append(decoded.wait(timeout=10))
            return super().forward(images)

    monkeypatch.setattr(predict, "load_image", load)
    model = Model(Waiting(), COLOURS, minus_mean(torch.zeros(3, 1, 1)), {}, [])
    images = [plain(number, 0, 0) for number in range(3 * BATCH_IMAGES)]
    answers = Predictor(model).each(images, top=3)
    first = next(answers)
    assert seen == [True]
    rest = [answer for answer in answers if isinstance(answer, list)]
    assert len(rest) == len(images) - 1
    assert isinstance(first, list)
    red = [next(p.probability for p in answer if p.name == "red") for answer in [first, *rest]]
    assert red == sorted(red)  # in order: each image is redder than the one before


@pytest.fixture(scope="module")
def random_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "model.safetensors"
    net = build_resnet(cifar_config(8, classes=3), torch.Generator().manual_seed(1)).eval()
    mean = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2)) * 255
    out.write_bytes(model_bytes(Model(net, COLOURS, minus_mean(mean), {}, [])))
    return out


def test_a_model_file_predicts_what_its_scores_say(random_net: Path) -> None:
    model = load(random_net)
    pixels = np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = model(images).softmax(1)[0].sort(descending=True)
    predictions = model.predict(png(pixels))
    assert [prediction.name for prediction in predictions] == [
        COLOURS[k] for k in expected.indices.tolist()
    ]
    assert [prediction.probability for prediction in predictions] == pytest.approx(
        expected.values.tolist(), rel=1e-4
    )
    assert model.classes == COLOURS
    assert isinstance(predictions[0], Prediction)


class LeastSquares(nn.Module):
    """A linear classifier for digits, fitted in one step."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        targets = nn.functional.one_hot(labels, 10).double()
        pixels = self.flat(images).double()
        ridge = 1e4 * len(pixels) * torch.eye(257, dtype=torch.float64)
        weight = torch.linalg.solve(pixels.T @ pixels + ridge, pixels.T @ targets)
        self.weight = weight.float()

    @staticmethod
    def flat(images: Tensor) -> Tensor:
        flat = images[:, 0].flatten(1)
        return torch.cat([flat, torch.full_like(flat[:, :1], 100.0)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return 10 * self.flat(images) @ self.weight


def test_a_digit_classifier_recognises_enlarged_digits() -> None:
    sets = load_digits()
    zero = minus_mean(torch.zeros(3, 16, 16))
    net = LeastSquares(sets.train.images.float(), sets.train.labels)
    model = Predictor(Model(net, sets.test.classes, zero, {}, []))
    small = [image.permute(1, 2, 0).numpy() for image in sets.test.images[:100]]
    large = [Image.fromarray(image).resize((160, 160), Image.Resampling.BICUBIC) for image in small]
    truth = [str(label) for label in sets.test.labels[:100].tolist()]
    with pytest.warns(UserWarning, match="only 16x16 images"):
        predictions = model.predict(large, top=1)
    correct = sum(answer[0].name == label for answer, label in zip(predictions, truth, strict=True))
    expected = sum(
        answer[0].name == label
        for answer, label in zip(model.predict(small, top=1), truth, strict=True)
    )
    assert expected >= 90
    assert correct >= expected - 2


def test_a_network_of_ones_own_must_have_an_output_for_each_class() -> None:
    model = replace(colours().model, classes=("red", "green"))
    with pytest.raises(ValueError, match="the network has 3 outputs, the model names 2 classes"):
        Predictor(model).predict(plain(1, 2, 3))
