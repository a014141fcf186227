from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.detection.small import LARGE, classifier_file, detector, short_recipe

from reslab.detection.inference import detect_objects
from reslab.detection.model import (
    Detector,
    detector_bytes,
    is_detector,
    load_detector,
    prepare_for_inference,
)
from reslab.detection.recipe import InferenceConfig
from reslab.models.batchnorm import norms_of
from reslab.runtime.files import sha256_of

IMAGE = torch.randint(0, 256, (40, 56, 3), generator=torch.Generator().manual_seed(0)).byte()


def written(folder: Path, it: Detector) -> Path:
    out = folder / "model.safetensors"
    out.write_bytes(detector_bytes(it))
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
def test_a_file_is_the_detector(tmp_path: Path, config: dict[str, object]) -> None:
    search = InferenceConfig(
        shorter=40, longest=60, refine=True, scales=(20, 40), smallest=4, proposals=9
    )
    made = replace(
        detector(search=search, **config),  # pyrefly: ignore[bad-argument-type]
        recipe=short_recipe().model_dump(mode="json"),
        metrics=[{"set": "test", "map_50": 12.5}],
    )
    file = written(tmp_path, made)
    assert is_detector(file)
    assert is_detector(tmp_path)  # the one in a run folder
    found = load_detector(tmp_path)
    assert sha256_of(found.net.state_dict()) == sha256_of(made.net.state_dict())
    assert found.net.config == made.net.config
    assert (found.classes, found.ids, found.search) == (made.classes, made.ids, search)
    assert (found.recipe, found.metrics) == (made.recipe, made.metrics)
    assert torch.equal(found.preprocessing.mean, made.preprocessing.mean)
    assert torch.equal(found.preprocessing.std, made.preprocessing.std)
    assert not found.net.training
    one, other = (detect_objects(it, IMAGE.numpy(), search) for it in (made, found))
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)


def test_in_use_batch_norm_is_inside_the_convolutions() -> None:
    it = detector()
    fast = prepare_for_inference(it)
    assert norms_of(it.net)
    assert not norms_of(fast.net)
    one, other = (detect_objects(made, IMAGE.numpy(), it.search) for made in (it, fast))
    assert len(one)
    torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-4)


def test_an_image_is_prepared_as_in_training() -> None:
    it = detector()
    shown = it.prepared(IMAGE.numpy())
    assert shown.shape == (1, 3, 40, 56)
    expected = (IMAGE.permute(2, 0, 1).float() - 110) / 55
    torch.testing.assert_close(shown[0], expected)


def test_what_is_no_detector_is_a_line(tmp_path: Path) -> None:
    file = classifier_file(tmp_path)
    assert not is_detector(file)
    with pytest.raises(ValueError, match="holds no detector; `reslab predict`"):
        load_detector(file)
    for text, why in ((b"", "no model file"), (b"{}", "no model file")):
        (tmp_path / "wrong").write_bytes(text)
        with pytest.raises(ValueError, match=why) as caught:
            load_detector(tmp_path / "wrong")
        assert "\n" not in str(caught.value)
    whole = detector_bytes(detector())
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no model file, or a damaged one"):
        load_detector(tmp_path / "cut")


def test_a_file_whose_weights_are_others_is_refused(tmp_path: Path) -> None:
    one, other = detector(), detector(context=True)
    other.net.config = one.net.config
    file = written(tmp_path, other)
    with pytest.raises(ValueError, match="does not fit its own configuration") as caught:
        load_detector(file)
    assert "\n" not in str(caught.value)


def test_a_detector_moves_with_all_it_needs() -> None:
    moved = detector().to(torch.device("cpu"))
    assert moved.preprocessing.std.device.type == "cpu"
    assert moved.prepared(IMAGE.numpy()).device.type == "cpu"
