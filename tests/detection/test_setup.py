import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.boxes.planted_boxes import CAT, DOG, plant_coco, plant_voc, sheet
from tests.detection.small import (
    SCENES,
    classifier,
    classifier_file,
    detector,
    own_recipe,
    scenes_folder,
    short_recipe,
)

from reslab.data.boxes.folder import open_detection
from reslab.detection import setup as prepare
from reslab.detection.alternating import begin_detection
from reslab.detection.setup import (
    fit_detector_to_weights,
    mean_colour,
    open_detection_data,
    open_training_data,
)
from reslab.runtime.device import setup_device
from reslab.training.setup import Inputs, inputs_at, must_match_classes
from reslab.training.train import Job


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return scenes_folder(tmp_path / "scenes")


def spoil(folder: Path, part: str, change: Any) -> None:
    path = folder / "annotations" / f"instances_{part}.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def test_digit_scenes_need_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "digit_scenes", lambda: SCENES)
    assert open_detection_data(short_recipe(), None) == (SCENES, "coco")


def test_the_protocol_follows_the_folders_layout(folder: Path, tmp_path: Path) -> None:
    sets, protocol = open_detection_data(own_recipe(), folder)
    assert (len(sets.train), len(sets.test), protocol) == (6, 3, "coco")
    sheets = {f"00{number}": sheet(CAT, DOG) for number in range(4)}
    plant_voc(tmp_path / "devkit" / "VOC2007", sheets, trainval=["000", "001"], test=["002", "003"])
    assert open_detection_data(own_recipe(), tmp_path / "devkit")[1] == "voc-2007"
    plant_voc(tmp_path / "own", sheets)
    assert open_detection_data(own_recipe(), tmp_path / "own")[1] == "voc-2012"


def test_a_recipe_for_own_boxes_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="name their folder with `data`"):
        open_detection_data(own_recipe(), None)


def test_the_number_of_classes_must_match(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"set model\.classes=10"):
        open_training_data(own_recipe("model.classes=9"), folder)
    must_match_classes("digit-scenes", 10, len(SCENES.train.classes))


def test_a_split_without_objects_is_refused_before_training(folder: Path) -> None:
    """Not only when the first evaluation has nothing to measure."""
    spoil(folder, "val", lambda coco: coco["annotations"].clear())
    with pytest.raises(
        ValueError, match="images of validation evaluated during training has an object"
    ):
        open_training_data(own_recipe(), folder)
    spoil(folder, "train", lambda coco: [row.update(iscrowd=1) for row in coco["annotations"]])
    with pytest.raises(ValueError, match="none of the 6 images of train has an object to detect"):
        open_training_data(own_recipe(), folder)


def test_the_images_evaluated_during_training_need_an_object(folder: Path) -> None:
    def first_two_empty(document: Any) -> None:
        document["annotations"] = [row for row in document["annotations"] if row["image_id"] == 2]

    spoil(folder, "val", first_two_empty)
    with pytest.raises(ValueError, match="none of the 2 images"):
        open_training_data(own_recipe("watched=2"), folder)
    open_training_data(own_recipe("watched=3"), folder)


def test_an_empty_test_split_is_refused_in_one_line(folder: Path) -> None:
    spoil(folder, "val", lambda coco: (coco["images"].clear(), coco["annotations"].clear()))
    with pytest.raises(ValueError, match="the annotations list no images"):
        open_detection_data(own_recipe(), folder)


def test_without_weights_the_mean_is_that_of_the_training_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = open_detection(folder).train
    images = [train.image(index) for index in range(6)]
    expected = np.mean([image.mean((0, 1)) for image in images], axis=0)
    mean = mean_colour(train)
    assert mean.shape == (3, 1, 1)
    torch.testing.assert_close(mean.flatten(), torch.tensor(expected).float())
    (folder / "train" / "000001.png").write_bytes(b"no image")
    some = [image.mean((0, 1)) for at, image in enumerate(images) if at != 1]
    torch.testing.assert_close(
        mean_colour(train).flatten(), torch.tensor(np.mean(some, axis=0)).float()
    )
    monkeypatch.setattr(prepare, "MEAN_COLOUR_IMAGES", 2)
    torch.testing.assert_close(mean_colour(train).flatten(), torch.tensor(some[0]).float())
    for file in train.files:
        (folder / "train" / file).write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"no image of train can be used: .*\.png: the file is empty"
    ):
        mean_colour(train)


def test_a_task_starts_from_the_weights_with_their_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "digit_scenes", lambda: SCENES)
    device, weights, file = setup_device("fp32"), classifier(), classifier_file(tmp_path)
    recipe = fit_detector_to_weights(short_recipe(), weights)
    task = begin_detection(Job(recipe, tmp_path, inputs_at(None, file), device, seed=1))
    try:
        assert torch.equal(task.preprocessing.mean, weights.preprocessing.mean)
        (example, _) = task.loader(0)
        assert example.image.shape == (1, 3, 32, 32)
        assert example.image.is_contiguous(memory_format=torch.channels_last)
        index = task.loader.sampler(0, 1).item()
        colour = SCENES.train.image(int(index)).mean() - weights.preprocessing.mean.mean()
        assert example.image.mean().item() == pytest.approx(float(colour), abs=1)
        assert task.proposer is None
        assert task.net.training
    finally:
        task.close()
    with pytest.raises(ValueError, match="`weights`"):
        begin_detection(Job(short_recipe(), tmp_path, Inputs(), device, seed=1))


def test_the_proposer_is_moved_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[torch.device] = []
    theirs = detector().net

    def to(device: torch.device) -> object:
        moved.append(device)
        return theirs

    monkeypatch.setattr(theirs, "to", to)
    weights, world = classifier(), setup_device("fp32")
    task = prepare.setup_detection(
        fit_detector_to_weights(short_recipe(), weights), 1, SCENES, "coco",
        world,
        weights=weights, preprocessing=None, proposer=theirs, begun=False, log=print,
    )  # fmt: skip
    task.close()
    assert moved == [world.torch_device]


def test_a_split_folder_has_both_splits(tmp_path: Path) -> None:
    sets, _ = open_detection_data(own_recipe("validation=0.5"), plant_coco(tmp_path))
    assert len(sets.train) + len(sets.test) == 3
