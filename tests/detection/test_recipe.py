import pytest
from tests.detection.small import LARGE, short_recipe

from reslab.detection.config import DetectorConfig
from reslab.detection.recipe import DetectionRecipe, InferenceConfig, Sampling
from reslab.recipes.tasks import recipe_in
from reslab.training.folder import RunFolder


def test_a_recipe_is_json_both_ways() -> None:
    recipe = short_recipe("training=alternating", "model.norm=group", "shorter=[24, 32]")
    again = DetectionRecipe.from_json(recipe.model_dump_json())
    assert again == recipe
    assert (again.model.norm, again.shorter, again.task) == ("group", (24, 32), "detection")


def test_a_folder_gives_its_recipe_back(tmp_path) -> None:
    recipe = short_recipe()
    folder = RunFolder.create(tmp_path / "run", recipe, {"seed": 1, "data": None})
    assert recipe_in(folder) == recipe


def test_defaults_are_appendix_a_and_the_released_code() -> None:
    recipe = DetectionRecipe(
        name="recipe", model=DetectorConfig(trunk=LARGE, classes=20), data="boxes"
    )
    assert (recipe.iterations, recipe.batch_size, recipe.learning_rate, recipe.drops) == (
        80_000,
        1,
        0.001,
        (0.75,),
    )
    assert (recipe.momentum, recipe.weight_decay, recipe.flip, recipe.fixed_stages) == (
        0.9,
        0.0005,
        True,
        1,
    )
    assert (recipe.shorter, recipe.longest, recipe.training, recipe.stage) == (
        (600,),
        1000,
        "joint",
        None,
    )
    assert recipe.sampling == Sampling(
        anchors=256, before=12_000, proposals=2000, regions=128, background=0.0
    )
    assert (recipe.model.norm, recipe.model.pooling, recipe.model.pooled) == ("frozen", "max", 14)
    assert (recipe.model.sizes, recipe.model.ratios) == ((128, 256, 512), (0.5, 1, 2))


def test_the_whole_run_is_the_fourth_step() -> None:
    recipe = short_recipe("training=alternating")
    assert (recipe.step, recipe.stage) == (None, 4)
    assert recipe.model_copy(update={"step": 2}).stage == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("fixed_stages=3", "fixed_stages=3: 2 stages precede the region head; at least 3"),
        ("model.trunk.blocks=[1]", "must have the same length"),
        ("step=1", "step=1 requires training=alternating"),
        ("step=4", "'step' cannot be 4"),
        ("model.norm=batch", "model.norm"),
        ("model.clases=3", "did you mean 'model.classes'"),
        ("search.scales=[5]", "two or more increasing sides"),
        ("sampling.background=0.5", "sampling.background"),
        ("model.sizes=[]", "model.sizes"),
        ("batch_size=3", None),
        ("virtual_gpus=3", "cannot be split into 3"),
        ("validation=1", "validation"),
        ("data=digits", "data"),
    ],
)
def test_invalid_changes_are_refused(change: str, why: str | None) -> None:
    if why is None:
        assert short_recipe(change)
        return
    with pytest.raises(ValueError, match=why) as caught:
        short_recipe(change)
    assert "\n" not in str(caught.value)


def test_a_trunk_needs_a_stage_before_the_region_head() -> None:
    with pytest.raises(ValueError, match="0 stages precede"):
        short_recipe("model.trunk.blocks=[1]", "model.trunk.widths=[4]")


def test_inference_defaults_are_the_papers() -> None:
    """600 pixels and 300 proposals (App. A); longer side 1000 and NMS 0.3 (Faster R-CNN)."""
    config = InferenceConfig()
    assert (config.shorter, config.longest, config.before, config.proposals) == (
        600,
        1000,
        6000,
        300,
    )
    assert (config.threshold, config.overlap, config.most, config.smallest) == (0.05, 0.3, 100, 16)
    assert (config.refine, config.scales) == (False, ())


def test_changes_return_new_settings() -> None:
    config = InferenceConfig()
    changed = config.with_changes({"refine": True, "scales": [200, 400, 600, 800, 1000]})
    assert changed.scales == (200, 400, 600, 800, 1000)
    assert (config.refine, changed.refine, changed.shorter) == (False, True, 600)
    assert config.with_changes({}) == config
    assert InferenceConfig.model_validate_json(changed.model_dump_json()) == changed


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"scales": [600]}, r"scales \[600\] must be two or more increasing sides"),
        ({"scales": [400, 400]}, "increasing"),
        ({"scales": [600, 400]}, "increasing"),
        ({"scales": [0, 400]}, "scales cannot be 0"),
        ({"threshold": 1.5}, "threshold cannot be 1.5"),
        ({"threshold": float("nan")}, "threshold cannot be nan"),
        ({"proposals": 0}, "proposals cannot be 0"),
        ({"sharpness": 1}, "sharpness cannot be 1: extra inputs"),
    ],
)
def test_invalid_inference_settings_are_refused_in_one_line(
    changes: dict[str, object], why: str
) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        InferenceConfig().with_changes(changes)
    assert "\n" not in str(caught.value)
