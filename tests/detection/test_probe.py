import pytest
from tests.detection.small import SCENES, classifier, short_recipe

from reslab.detection import setup as prepare
from reslab.detection.initial import fit_detector_to_weights
from reslab.detection.task import detector_probed
from reslab.runtime.device import setup_device
from reslab.training.probe import probe


@pytest.mark.parametrize("training", ["joint", "alternating"])
def test_what_a_run_will_show(training: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "digit_scenes", lambda: SCENES)
    weights = classifier()
    recipe = fit_detector_to_weights(short_recipe(f"training={training}"), weights)
    it = prepare.setup_detector(recipe, 1, None, setup_device("fp32"), weights, print)
    try:
        run = detector_probed(it)
        # 6 iterations, looked at once on the way (2 images) and at the end (3); two of the four
        # steps judge regions
        shown = {"joint": (6, 2 + 3), "alternating": (4 * 6, 2 * (2 + 3))}[training]
        assert (run.batches, run.evaluated) == shown
        assert (run.task.recipe.name, run.images, run.task.epoch) == (recipe.name, 6, 3)
        assert run.evaluate() == 3
        learning = {name for name, it in run.task.net.named_parameters() if it.requires_grad}
        assert {"proposals.conv.weight", "regressor.weight"} <= learning
        found = probe(run, 2)
        assert min(found.together, found.network, found.evaluating) > 0
        assert found.images is not None
        assert found.seconds(run) > 0
    finally:
        it.close()
