from pathlib import Path

import pytest

from reslab.recipes import any_recipe, network_of
from reslab.studies.experiments import plan_detectors, plan_study

OUT = Path("out")


def test_degradation_is_plain_and_residual_at_both_depths() -> None:
    runs = plan_study("degradation", out=OUT).runs
    assert [run.base for run in runs] == [
        "digits-plain20", "digits-plain56", "digits-resnet20", "digits-resnet56",
    ]  # fmt: skip
    assert len({run.changes for run in runs}) == 1
    assert {(run.recipe.iterations, run.recipe.learning_rate) for run in runs} == {(320, 0.03)}
    longer = plan_study("degradation", out=OUT, iterations=5000).runs[0].recipe
    assert (longer.iterations, longer.learning_rate, longer.eval_every) == (5000, 0.03, 32)


def test_on_cifar10_degradation_is_trained_as_in_the_paper(random_cifar10: Path) -> None:
    runs = plan_study("degradation", on="cifar10", data=random_cifar10, out=OUT).runs
    assert [run.changes for run in runs] == [(), (), (), ()]


def test_depth_is_the_residual_half_of_table_6() -> None:
    runs = plan_study("depth", out=OUT, seeds=2).runs
    assert len(runs) == 10
    assert {network_of(run.recipe).blocks[0] for run in runs} == {3, 5, 7, 9, 18}
    assert len({run.folder for run in runs}) == 10


def test_shortcuts_are_a_b_and_c() -> None:
    runs = plan_study("shortcuts", out=OUT).runs
    assert [network_of(run.recipe).shortcut for run in runs] == ["A", "B", "C"]


def test_a_shortened_study_keeps_the_shape_of_the_schedule() -> None:
    (run,) = plan_study("depth", depths=(20,), iterations=400).runs
    assert run.folder == Path("studies/depth-digits/runs/resnet20-seed1")
    assert run.recipe.iterations == 400
    assert run.recipe.drops == (0.5, 0.75)
    assert run.recipe.eval_every == 20


@pytest.mark.parametrize(
    ("name", "near"),
    [("degredation", "degradation"), ("dept", "depth"), ("response", "responses")],
)
def test_an_unknown_study_is_refused(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=near):
        plan_study(name)


def test_a_depth_that_no_recipe_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"21 is not in Table 6; .* 20, 32, 44, 56, 110, 1202"):
        plan_study("degradation", depths=(21,))


def test_detection_is_a_classifier_and_two_detectors_per_seed() -> None:
    trunk, *detectors = plan_study("detection", out=OUT, seeds=2).runs
    assert (trunk.base, trunk.changes, trunk.weights) == ("digits-resnet20", (), None)
    assert [(run.seed, run.weights) for run in detectors] == [
        (1, trunk.folder), (1, None), (2, trunk.folder), (2, None),
    ]  # fmt: skip
    trained, untrained, *_ = (run.recipe for run in detectors)
    assert trained.differences(untrained) == ["model.norm: frozen -> group"]
    assert trained.iterations == any_recipe("digit-scenes-resnet20-c4").iterations
    assert len({run.folder for run in detectors}) == 4


def test_a_shortened_detection_study_is_shortened_as_a_whole() -> None:
    whole = any_recipe("digit-scenes-resnet20-c4").iterations
    trunk, trained, _ = plan_detectors(OUT, whole // 10, seeds=1)
    assert trunk.recipe.iterations == any_recipe("digits-resnet20").iterations // 10
    assert trained.recipe.iterations == whole // 10
    assert trained.recipe.eval_every == whole // 10 // 20
    longer, _, _ = plan_detectors(OUT, 2 * whole, seeds=1)
    assert longer.changes == ()


def test_no_iterations_are_refused() -> None:
    with pytest.raises(ValueError, match="`iterations` 0 must be at least 1"):
        plan_study("detection", iterations=0)
