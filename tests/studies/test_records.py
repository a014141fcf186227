import json

import pytest
from tests.training.finder import FinderRecipe

from reslab.detection.recipe import DetectionRecipe
from reslab.studies.records import Seeds, group_by_recipe, read_record, shared_task
from reslab.training.recipe import Recipe


def test_numbers_over_seeds_are_printed_as_table_6_prints_them() -> None:
    assert str(Seeds((6.43, 6.61, 6.79))) == "6.43 (6.61 ± 0.18, n=3)"
    assert str(Seeds((6.43,))) == "6.43 (n=1)"


def test_runs_of_one_recipe_are_grouped(classifier) -> None:
    runs = (("plain20", 1), ("plain56", 1), ("plain20", 2))
    groups = group_by_recipe(classifier(f"digits-{model}", seed) for model, seed in runs)
    assert [len(group.runs) for group in groups] == [2, 1]


def test_labels_name_the_parts_that_the_paper_does_not_have(classifier) -> None:
    shortcuts = json.dumps(["A"] * 8 + ["B"])
    changed = {
        "ResNet-20, group norm": ["model.norm=group"],
        "ResNet-20, stochastic depth 0.5, dropout 0.1": [
            "model.stochastic_depth=0.5", "model.dropout=0.1",
        ],
        "ResNet-20 mixed": [f"model.shortcut={shortcuts}"],
    }  # fmt: skip
    runs = [
        classifier("digits-resnet20", seed, changes=tuple(it))
        for seed, it in enumerate(changed.values())
    ]
    assert [run.label for run in runs] == list(changed)
    assert [run.network.option for run in runs] == ["A", "A", "mixed"]
    assert len(group_by_recipe(runs)) == 3


def test_fields_without_effect_on_weights_do_not_distinguish_recipes(classifier, detector) -> None:
    runs = [
        classifier("digits-plain20"),
        classifier("digits-plain20", 2, changes=("eval_every=7", "recompute=blocks")),
    ]
    assert len(group_by_recipe(runs)) == 1
    runs = [detector(), detector(2, changes=("watched=7", "eval_every=9"))]
    assert len(group_by_recipe(runs)) == 1


def test_one_run_does_not_count_as_two_seeds(classifier) -> None:
    record = classifier("digits-plain20")
    with pytest.raises(ValueError, match="have the same recipe and seed"):
        group_by_recipe([record, record])


def test_the_curve_of_several_seeds_is_their_mean(classifier) -> None:
    (group,) = group_by_recipe(
        classifier("digits-plain20", seed, test_error=error) for seed, error in ((1, 10), (2, 30))
    )
    evals = [row for row in group.curve_rows() if row["kind"] == "eval"]
    assert len(evals) == 10
    assert evals[-1]["top1_error"] == pytest.approx(20 + 5)


def test_the_larger_precision_is_the_best_of_several_seeds(detector) -> None:
    (group,) = group_by_recipe(
        detector(seed, map_50=value) for seed, value in ((1, 80.0), (2, 84.0))
    )
    assert str(group.map_50) == "84.00 (82.00 ± 2.83, n=2)"
    assert group.mean_report()["map_50"] == 82.0
    assert group.mean_report()["map_50_95"] == 41.0


def test_a_run_that_is_not_finished_is_refused(finish) -> None:
    run = finish("digits-plain20")
    (run / "result.json").unlink()
    with pytest.raises(ValueError, match="not finished: resume it with `reslab resume"):
        read_record(run, Recipe)


def test_a_page_has_runs_of_one_task(finish_detector, finish) -> None:
    detector, classifier = finish_detector(), finish("digits-resnet20")
    assert shared_task([detector, detector]) == "detection"
    with pytest.raises(ValueError, match=r"is a run of a classifier, .* of a detector"):
        shared_task([classifier, detector])
    with pytest.raises(ValueError, match="holds a run of a classifier, not of a detector"):
        read_record(classifier, DetectionRecipe)
    (classifier / "recipe.json").write_text(FinderRecipe(name="finder").model_dump_json())
    with pytest.raises(ValueError, match="holds a run of a detector, not of a classifier"):
        read_record(classifier, Recipe)


def test_a_step_of_alternating_training_has_no_page(finish_detector) -> None:
    run = finish_detector()
    result = json.loads((run / "result.json").read_text()) | {"evaluation": []}
    (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match="a step of alternating training"):
        read_record(run, DetectionRecipe)


NET, DATA = "PreAct; 531 parameters; 0123456789ab", "letters; 40 images; 0123456789ab"
OPTIMIZER = "AdamW(weight_decay=0.05); 0123456789ab"


def test_runs_with_parts_of_ones_own_are_groups_of_their_own(own_parts, classifier) -> None:
    """And their seeds one group, as of any recipe."""
    records = [
        classifier("digits-resnet20"),
        own_parts("digits-resnet20", 2, net=NET),
        own_parts("digits-resnet20", 3, net=NET),
        own_parts("digits-resnet20", 4, net=NET.replace("ab", "cd")),
        own_parts("digits-resnet20", 5, optimizer=OPTIMIZER),
        own_parts("digits-resnet20", 6, data=DATA),
    ]
    groups = group_by_recipe(records)
    assert [len(group.runs) for group in groups] == [1, 2, 1, 1, 1]
    labels = [group.first.label for group in groups]
    optimizer = "ResNet-20, AdamW(weight_decay=0.05)"
    assert labels == ["ResNet-20", "PreAct", "PreAct", optimizer, "ResNet-20"]
    assert [group.first.data for group in groups] == ["digits"] * 4 + ["letters"]
    assert [group.first.kind for group in groups[:2]] == ["ResNet A", "PreAct"]
