from pathlib import Path

import pytest
from tests.detection.small import SCENES, classifier_file, short_recipe

from reslab.detection import setup as prepare
from reslab.detection.alternating import detector_target
from reslab.detection.setup import fit_detector_to_weights
from reslab.models.model_file import load_model
from reslab.runtime.device import setup_device
from reslab.training.probe import probe
from reslab.training.setup import inputs_at
from reslab.training.train import Job


@pytest.mark.parametrize("training", ["joint", "alternating"])
def test_the_numbers_of_batches_and_images_of_a_run(
    training: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "digit_scenes", lambda: SCENES)
    weights = classifier_file(tmp_path)
    recipe = fit_detector_to_weights(short_recipe(f"training={training}"), load_model(weights))
    run = detector_target(
        Job(recipe, tmp_path, inputs_at(None, weights), setup_device("fp32"), seed=1)
    )
    try:
        # 6 iterations, evaluated once during training (2 images) and at the end (3); two of the
        # four steps are evaluated
        shown = {"joint": (6, 2 + 3), "alternating": (4 * 6, 2 * (2 + 3))}[training]
        assert (run.batches, run.evaluated) == shown
        assert (run.task.recipe.name, run.images, run.task.epoch) == (recipe.name, 6, 3)
        assert (run.evaluate(2), run.evaluate(9)) == (2, 3)
        trained = {
            name for name, parameter in run.task.net.named_parameters() if parameter.requires_grad
        }
        assert {"proposals.conv.weight", "regressor.weight"} <= trained
        measured = probe(run, 2)
        assert min(measured.together, measured.network, measured.evaluating) > 0
        assert measured.images is not None
        assert measured.seconds(run) > 0
    finally:
        run.close()
