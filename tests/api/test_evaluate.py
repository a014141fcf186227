"""Evaluation and prediction from Python: loaded models, images in memory, results as values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import reslab
from reslab.models.config import cifar_config

CLASSES = ("circle", "cross", "square")
MEAN = reslab.Preprocessing.of([128.0, 128.0, 128.0], size=16)


@pytest.fixture(scope="module")
def images() -> reslab.ImagesInMemory:
    """Forty random images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 16, 16), dtype=np.uint8)
    return reslab.image_set(pixels, [number % 3 for number in range(40)], CLASSES, "shapes")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of an untrained network."""
    path = tmp_path_factory.mktemp("model") / "shapes.safetensors"
    net = reslab.build_resnet(cifar_config(8, classes=3), torch.Generator().manual_seed(1))
    reslab.save(net.eval(), CLASSES, MEAN, path)
    return path


def test_a_loaded_model_is_evaluated_like_its_file(
    model: Path, images: reslab.ImagesInMemory, tmp_path: Path
) -> None:
    loaded = reslab.load(model)
    evaluations = reslab.evaluate([str(model), loaded], data=images, on_event=None)
    assert len(evaluations) == 3
    first, second, mean = evaluations
    assert (first.title, second.title) == (str(model), str(model))
    assert first.report == second.report
    assert isinstance(mean.report, reslab.Report)
    assert (mean.report.set, mean.report.n) == ("shapes", 40)
    assert evaluations[2] is mean
    assert "\n" not in repr(evaluations)
    assert str(evaluations).splitlines()[0] == f"{model}  {first.report}"
    page = evaluations.write_page(tmp_path / "page")
    assert page == tmp_path / "page" / "report.html"
    assert page.read_text().count("Confusion matrix") == 3
    with pytest.raises(ValueError, match="is a file: name a folder"):
        evaluations.write_page(model)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_reports_are_those_of_torch_whatever_computes_the_network(
    backend: str, model: Path, images: reslab.ImagesInMemory
) -> None:
    expected, found = (
        reslab.evaluate([model, reslab.load(model)], data=images, backend=name, on_event=None)
        for name in ("torch", backend)
    )
    assert [entry.title for entry in found] == [entry.title for entry in expected]
    for entry, wanted in zip(found, expected, strict=True):
        assert isinstance(entry.report, reslab.Report)
        assert isinstance(wanted.report, reslab.Report)
        assert entry.report.loss == pytest.approx(wanted.report.loss, rel=1e-5)
        assert entry.report.as_dict() | {"loss": 0} == wanted.report.as_dict() | {"loss": 0}
        assert entry.report.confusion == wanted.report.confusion
    loaded = reslab.load(model, backend=backend)
    pixels = images.images[0].permute(1, 2, 0).numpy()
    (wanted,) = reslab.predict(model, pixels)
    for result in (reslab.predict(loaded, pixels), reslab.predict(model, pixels, backend=backend)):
        assert [(it.name, it.probability) for it in result[0].results] == [
            (it.name, pytest.approx(it.probability, abs=1e-6)) for it in wanted.results
        ]


def test_arguments_that_do_not_go_together(model: Path, images: reslab.ImagesInMemory) -> None:
    with pytest.raises(ValueError, match="`on` does not apply to a set given as data"):
        reslab.evaluate(model, data=images, on="digits")
    with pytest.raises(ValueError, match="`refine` does not apply to classifiers"):
        reslab.evaluate(reslab.load(model), refine=True)
    with pytest.raises(ValueError, match="no model given"):
        reslab.evaluate([])
    with pytest.raises(ValueError, match="is a classifier, not a detector"):
        reslab.detect(reslab.load(model), "image.png")  # type: ignore[arg-type]


def test_a_network_of_ones_own_is_given_again(
    images: reslab.ImagesInMemory, tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    path = tmp_path / "own.safetensors"
    reslab.save(net.eval(), CLASSES, MEAN, path)
    with pytest.raises(ValueError, match=r"reslab.load\(.*, net=...\)"):
        reslab.load(path)
    with pytest.raises(ValueError, match=r"reslab.load\(.*, net=...\)"):
        reslab.evaluate(path, data=images, on_event=None)
    loaded = reslab.load(path, net=net)
    (evaluation,) = reslab.evaluate(loaded, data=images, on_event=None)
    logits = loaded(images.images)
    wrong = (logits.argmax(1) != images.labels).double().mean()
    assert isinstance(evaluation.report, reslab.Report)
    assert evaluation.report.top1_error == pytest.approx(100 * float(wrong))


def test_images_of_every_kind_are_classified_alike(model: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "a.png"
    Image.fromarray(pixels).save(file)
    (tmp_path / "folder" / "b.png").write_bytes(b"no image")
    single = reslab.predict(model, file, top=2)
    assert [len(result.results) for result in single] == [2]
    several = reslab.predict(
        reslab.load(model), [pixels, file.read_bytes(), Image.fromarray(pixels)], top=2
    )
    assert [result.file for result in several] == ["image 1", "image 2", "image 3"]
    expected = [
        (best.name, pytest.approx(best.probability, rel=1e-3)) for best in single[0].results
    ]
    for result in several:
        assert [(best.name, best.probability) for best in result.results] == expected
    good, bad = reslab.predict(model, tmp_path / "folder")
    assert [(best.name, best.probability) for best in good.results[:2]] == expected
    assert (bad.file, bad.results) == (str(file.with_name("b.png")), ())
    assert bad.error is not None
    assert repr(bad) == f"{bad.file}: {bad.error}"
    assert repr(single[0]) == f"{file}: 100.0 %  circle, 0.0 %  cross"


def test_weights_that_are_not_finite_are_refused_by_name(
    model: Path, images: reslab.ImagesInMemory
) -> None:
    loaded = reslab.load(model)
    with torch.no_grad():
        loaded.model.resnet.fc.bias[1] = torch.nan
    with pytest.raises(RuntimeError, match=rf"{model}: the network's scores are NaN"):
        reslab.evaluate(loaded, data=images, on_event=None)
    reslab.save(loaded.model.net, CLASSES, MEAN, model)
    for use in (reslab.load, lambda path: reslab.evaluate(path, data=images, on_event=None)):
        with pytest.raises(RuntimeError, match=rf"{model}: fc\.bias is infinite or NaN"):
            use(model)
