"""The preprocessing inside an ONNX graph gives the pixels that reslab gives a network."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from tests.models.kinds import KINDS, perturbed

from reslab.data.resize import Interpolation, resize_whole_to_centre
from reslab.deploy.prepare import IMAGES, PREPARED, crop_preparation, image_preparation
from reslab.evaluation.predict import fit_and_resize, fixed_side
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing

# odd and even margins, so that halves are rounded up and down; shrunk and enlarged; tall and wide
SIZES = [(375, 500), (51, 38), (36, 36), (20, 29), (33, 57), (37, 43), (7, 5), (120, 40), (81, 40),
         (30, 131), (400, 150)]  # fmt: skip
MEAN, STD = [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]


def model_with(preprocessing: Preprocessing) -> Model:
    return Model(perturbed(KINDS["no norm"]), ("a", "b", "c"), preprocessing, {}, [])


def run(graph: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(graph, full_check=True)
    session = InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (prepared,) = session.run([PREPARED], {IMAGES: images})
    assert isinstance(prepared, np.ndarray)
    return prepared


def noise(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("resize", "size", "interpolation"),
    [(36, 32, "bilinear"), (33, 32, "bicubic"), (74, 65, "bilinear"), (64, 33, "bicubic")],
)
def test_pixels_are_pillows(
    resize: int, size: int, interpolation: Interpolation, exact: bool
) -> None:
    preprocessing = Preprocessing.of([0.0, 0.0, 0.0], resize=resize, size=size)
    model = model_with(replace(preprocessing, interpolation=interpolation))
    graph = image_preparation(model, exact=exact)
    session = InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for height, width in SIZES:
        image = noise(height, width)
        (found,) = session.run([PREPARED], {IMAGES: np.stack([image, image[::-1]])})
        assert isinstance(found, np.ndarray)
        expected = np.stack(
            [
                resize_whole_to_centre(each, resize, size, interpolation)
                for each in (image, image[::-1])
            ]
        )
        difference = np.abs(found - expected.transpose(0, 3, 1, 2).astype(np.float32))
        assert difference.max() <= (1 if size == 65 and not exact else 0), (height, width)


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing.of(MEAN, STD, resize=36, size=32),
        Preprocessing.of(MEAN),
        Preprocessing(torch.tensor(MEAN)[:, None, None], torch.ones(3, 1, 1), "BGR", 20, 16),
        Preprocessing.of(np.arange(3.0 * 16 * 16).reshape(3, 16, 16), size=16, resize=20),
        Preprocessing.of(np.arange(3.0 * 16 * 16).reshape(3, 16, 16)),
        Preprocessing.of(np.arange(3.0 * 16 * 16).reshape(3, 16, 16), size=24),
    ],
    ids=["std", "whole", "BGR", "mean image", "mean image alone", "mean image of another size"],
)
def test_arithmetic_is_that_of_predictions(preprocessing: Preprocessing) -> None:
    model = model_with(preprocessing)
    side, size = preprocessing.resize, preprocessing.size
    for image in (noise(45, 61), noise(16, 16)):
        views, _ = fit_and_resize(image, {side: size}, fixed_side(model), "image")
        crop = views[side][None]
        expected = preprocessing(crop).numpy()
        found = run(image_preparation(model, exact=True), image[None])
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-6)
        found = run(crop_preparation(model), crop.permute(0, 2, 3, 1).contiguous().numpy())
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-6)
