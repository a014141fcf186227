"""Exported torch programs: the probabilities of `predict`, for images of any size."""

import json
import warnings
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from tests.models.kinds import FIELDS, KINDS, perturbed
from torch import Tensor, nn

from reslab.data.resize import Interpolation, resize_whole_to_centre
from reslab.deploy.backends import ExportedNet
from reslab.deploy.metadata import metadata_of
from reslab.deploy.onnx_file import EXACT
from reslab.deploy.opening import open_exported
from reslab.deploy.proof import prove
from reslab.deploy.proof_images import SEEDED, proof_images
from reslab.deploy.pt2 import archive_bytes, split_archive
from reslab.deploy.torch_program import (
    METADATA,
    ImageClassifier,
    TorchProgram,
    exact_centre,
    export_program,
    program_bytes,
    resized_centre,
    with_metadata,
)
from reslab.evaluation.predict import Predictor
from reslab.models.config import ResNetConfig
from reslab.models.convert.importer import import_model
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing

# height, width; smaller and larger than the crop, thin, and with odd margins
SIZES = [(50, 61), (64, 45), (37, 37), (200, 301), (20, 31), (38, 95), (150, 33), (36, 38)]
FEW = (SIZES[0], SIZES[4], SIZES[6])  # smaller, enlarged, and shrunk vertically first
CLASSES = ("cat", "dog", "mouse")
CROP = Preprocessing.of([120.0, 110, 100], [50.0, 60, 70], size=24, resize=29)
BGR = Preprocessing(CROP.mean, CROP.std, channels="BGR", resize=29, size=24)
BICUBIC = replace(CROP, interpolation="bicubic")
MEAN_IMAGE = Preprocessing.of(torch.rand(3, 24, 24, generator=torch.Generator()) * 255)
WHOLE = Preprocessing.of([120.0, 110, 100], [50.0, 60, 70])


def model_with(preprocessing: Preprocessing, kind: str = "batch norm") -> Model:
    return Model(perturbed(KINDS[kind]), CLASSES, preprocessing, {}, [])


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return an image with a gradient, edges and noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows * 2, columns * 3, 128 + 100 * np.sin(rows / 3 + columns / 5)], axis=-1)
    image[height // 3 : height // 2, width // 4 : width // 2] += 90
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def predicted(model: Model, images: np.ndarray) -> Tensor:
    """Return reslab's probabilities, [B, classes]."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="this network takes only")
        answers = Predictor(model).predict(list(images), top=len(CLASSES))
    rows = [{entry.name: entry.probability for entry in answer} for answer in answers]
    return torch.tensor([[row[name] for name in CLASSES] for row in rows])


def deviation(program: Callable[[Tensor], Tensor], model: Model) -> float:
    """Return the largest difference of probabilities from `predict`, over sizes and batches."""
    largest = 0.0
    for (height, width), batch in zip(FEW, (1, 2, 7), strict=True):
        images = np.stack([photograph(height, width, seed) for seed in range(batch)])
        difference = program(torch.from_numpy(images)) - predicted(model, images)
        largest = max(largest, difference.abs().max().item())
    return largest


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("size", SIZES)
def test_exact_pixels_are_those_of_pillow_and_the_others_nearly(
    size: tuple[int, int], interpolation: Interpolation
) -> None:
    image = photograph(*size)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    for side, crop in ((29, 24), (24, 24), (64, 63)):
        pixels = resize_whole_to_centre(image, side, crop, interpolation).copy()
        judge = torch.from_numpy(pixels).permute(2, 0, 1)
        assert torch.equal(exact_centre(planes, side, crop, interpolation)[0], judge.double())
        off = (resized_centre(planes, side, crop, interpolation)[0].int() - judge.int()).abs()
        assert off.max() <= 1
        assert (off > 0).float().mean() < 0.02


@pytest.mark.parametrize("preprocessing", [CROP, BGR, BICUBIC, MEAN_IMAGE, WHOLE])
def test_every_preprocessing_is_inside(preprocessing: Preprocessing) -> None:
    model = model_with(preprocessing)
    assert deviation(ImageClassifier(model, exact=True).eval(), model) < 1e-6
    assert deviation(ImageClassifier(model, exact=False).eval(), model) < 2e-3


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_a_network_is_exported(kind: str) -> None:
    model = model_with(CROP, kind)
    assert deviation(ImageClassifier(model, exact=True).eval(), model) < 1e-5


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "model.pt2"
    model = model_with(BGR)
    content = program_bytes(export_program(model, exact=True), metadata_of(model, "images"))
    file.write_bytes(content)
    return file


@pytest.fixture(scope="module")
def opened(exported: Path) -> Model:
    return open_exported(exported)


def test_an_exported_file_answers_as_predict_does(opened: Model) -> None:
    assert isinstance(opened.net, ExportedNet)
    program = opened.net.runtime
    assert isinstance(program, TorchProgram)
    assert deviation(applying(program), model_with(BGR)) < 1e-6
    assert deviation(applying(program), replace_mean(model_with(BGR))) > 2e-3


def test_the_proof_passes_the_right_program_and_no_other(opened: Model) -> None:
    model = model_with(BGR)
    seeded = proof_images(model, [], "")
    images = replace(seeded, images=seeded.images[:SEEDED])  # of every shape
    assert prove(model, opened, images, EXACT).passed
    right = model.preprocessing
    for wrong in (
        replace(right, mean=right.mean + 4),
        replace(right, channels="RGB"),
        replace(right, resize=30),
        replace(right, size=25, resize=30),
        replace(right, interpolation="bicubic"),
    ):
        other = replace(model, preprocessing=wrong)
        assert not prove(other, opened, images, EXACT).passed, wrong


def applying(program: TorchProgram) -> Callable[[Tensor], Tensor]:
    return lambda images: torch.from_numpy(program(images.numpy()))


def test_an_exported_file_opens_as_a_model(opened: Model) -> None:
    model = model_with(BGR)
    images = [photograph(50, 61, seed) for seed in range(3)]
    answers = Predictor(opened).predict(images)
    for answer, wanted in zip(answers, Predictor(model).predict(images), strict=True):
        assert [entry.name for entry in answer] == [entry.name for entry in wanted]
        pairs = zip(answer, wanted, strict=True)
        assert all(abs(one.probability - other.probability) < 1e-6 for one, other in pairs)
    assert opened.backend == "torch.export"
    with pytest.raises(ValueError, match="only one-crop applies"):
        Predictor(opened).predict(images, protocol="ten-crop")


def test_an_exported_file_names_nothing_of_the_machine(exported: Path) -> None:
    content = exported.read_bytes()
    assert b"torch_program.py" not in content  # no lines of the code that it was traced from
    assert str(Path(__file__).parent).encode() not in content


def test_a_program_without_its_weights_is_refused_in_one_line(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = split_archive(exported.read_bytes())
    del records["data/weights/weight_0"]
    file = tmp_path / "a.pt2"
    file.write_bytes(archive_bytes(records))
    with pytest.raises(ValueError, match=r"a\.pt2 is damaged or not an exported model$"):
        TorchProgram(file)
    assert not caplog.records


def test_metadata_is_replaced_alone(exported: Path) -> None:
    before = exported.read_bytes()
    after = with_metadata(before, {"names": "{0: 'cat'}"})
    assert json.loads(split_archive(after)[METADATA]) == {"names": "{0: 'cat'}"}
    different = {
        name for name, part in split_archive(before).items() if split_archive(after)[name] != part
    }
    assert different == {METADATA}


@pytest.mark.parametrize("text", ["[1]", '{"names": 3}', "{"])
def test_metadata_that_no_export_writes_are_none(opened: Model, text: str) -> None:
    assert isinstance(opened.net, ExportedNet)
    program = copy(opened.net.runtime)
    assert isinstance(program, TorchProgram)
    program.facts = text.encode()
    assert program.metadata() == {}


def replace_mean(model: Model) -> Model:
    mean = model.preprocessing.mean + 20
    wrong = Preprocessing(mean, model.preprocessing.std, channels="BGR", resize=29, size=24)
    return Model(model.net, CLASSES, wrong, {}, [])


def test_an_image_too_small_for_the_program_is_refused() -> None:
    smallest = ResNetConfig.model_validate(FIELDS | {"blocks": (1, 1), "widths": (4, 4)})
    model = Model(perturbed(smallest), CLASSES, WHOLE, {}, [])
    program = TorchProgram(program_bytes(export_program(model), {}))
    assert deviation(applying(program), model) < 1e-5
    with pytest.raises(
        ValueError, match="does not run on uint8 images of shape 1 x 1 x 9 x 3: Guard"
    ):
        program(np.zeros((1, 1, 9, 3), np.uint8))


class Own(nn.Module):
    """A network that no configuration describes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 5, stride=4), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).relu().mean((2, 3)))


def own_model() -> Model:
    return Model(Own().eval(), CLASSES, CROP, {}, [], own_net="Own")


def test_own_networks_have_their_preprocessing_inside() -> None:
    model = own_model()
    assert deviation(ImageClassifier(model, exact=True).eval(), model) < 1e-6


@pytest.mark.slow
def test_own_networks_are_exported_and_untraceable_ones_refused() -> None:
    model = own_model()
    program = export_program(model).module()
    assert deviation(program, model) < 2e-3

    class Counting(Own):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * (1 if images.sum() > 0 else 2)

    untraceable = Model(Counting().eval(), CLASSES, CROP, {}, [], own_net="Counting")
    with pytest.raises(ValueError, match="cannot trace Counting"):
        export_program(untraceable)


@pytest.mark.slow
@pytest.mark.parametrize("exact", [False, True])
def test_resnet18_on_forty_images(resnet18_file: Path, exact: bool) -> None:
    model = import_model(resnet18_file, "resnet18").model
    program = export_program(model, exact=exact).module()
    predictor, largest = Predictor(model), 0.0
    rng = np.random.default_rng(0)
    for seed in range(40):
        height, width = rng.integers(180, 900, 2)
        image = photograph(height, width, seed)
        wanted = torch.zeros(len(model.classes))
        for entry in predictor.predict(image, top=len(model.classes)):
            wanted[int(entry.id)] = entry.probability
        found = program(torch.from_numpy(image)[None])[0]
        largest = max(largest, (found - wanted).abs().max().item())
    print(f"max |dp| {largest:.1e}")
    assert largest < (1e-5 if exact else 2e-3)
