import json
import re
from inspect import isabstract

import pytest
from pydantic import ValidationError
from tests.training.finder import FinderRecipe

from reslab.data.augment import ResizedCrop, ScaleCrop
from reslab.models.config import config_named
from reslab.models.parts import GroupNorm, NoisyBatchNorm, NoNorm
from reslab.recipes import recipe
from reslab.training.recipe import Recipe, RunRecipe, Warmup


def test_json_both_ways() -> None:
    for name in ("cifar10-resnet110", "digits-plain56", "cifar10-resnet20-B"):
        it = recipe(name)
        assert Recipe.from_json(it.model_dump_json()) == it


def test_a_recipe_is_shown_in_one_line_and_printed_whole() -> None:
    shown = recipe("cifar10-resnet20")
    assert repr(shown) == (
        "Recipe('cifar10-resnet20': 64,000 iterations of 128 images, learning rate 0.1)"
    )
    assert Recipe.from_json(str(shown)) == shown


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValidationError):
        setattr(recipe("digits-resnet20"), "iterations", 3)  # noqa: B010


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ("iterations=4000", "iterations", 4000),
        ("learning_rate=1", "learning_rate", 1.0),
        ("drops=[0.25, 0.5]", "drops", (0.25, 0.5)),
        ("warmup=null", "warmup", None),
        ("balance=loss", "balance", "loss"),
        ("precision=fp32", "precision", "fp32"),
    ],
)
def test_any_field_can_be_changed(change: str, field: str, value: object) -> None:
    assert getattr(recipe("cifar10-resnet110").with_changes([change]), field) == value


def test_fields_inside_fields_can_be_changed() -> None:
    changed = recipe("cifar10-resnet20").with_changes(["model.shortcut=C", "warmup.cap=7"])
    assert changed.model.shortcut == "C"
    assert changed.warmup is not None
    assert (changed.warmup.cap, changed.warmup.learning_rate) == (7, 0.01)
    photographs = recipe("imagenet-resnet18").with_changes(["augmentation.colour=0"])
    assert photographs.augmentation == ScaleCrop(colour=0.0)


def test_an_augmentation_can_be_named() -> None:
    changed = recipe("imagenet-resnet18").with_changes(["augmentation=resized-crop"])
    assert changed.augmentation == ResizedCrop()


def test_a_norm_can_be_named_and_its_fields_set() -> None:
    base = recipe("digits-resnet20")
    changed = base.with_changes(["model.norm=group", "model.norm.groups=4"])
    assert changed.model.norm == GroupNorm(groups=4)
    assert base.differences(changed) == [
        "model.norm.kind: batch -> group",
        "model.norm.groups: None -> 4",
    ]
    norms = ["group", "none", "noisy-batch"]
    small = ["model.blocks=[1,1,1]", f"model.norm={json.dumps(norms)}"]
    assert base.with_changes(small).model.norm == (GroupNorm(), NoNorm(), NoisyBatchNorm())
    with pytest.raises(ValueError, match=r"no model\.norm\.1 'bach'; did you mean 'batch'"):
        base.with_changes(["model.blocks=[1,1,1]", 'model.norm=["batch","bach","batch"]'])


def test_one_image_per_share_is_enough_without_batch_norm() -> None:
    changes = ["batch_size=4", "virtual_gpus=4"]
    assert recipe("digits-resnet20").with_changes([*changes, "model.norm=group"])
    for norm in ("batch", "noisy-batch"):
        with pytest.raises(ValueError, match="at least 2 images"):
            recipe("digits-resnet20").with_changes([*changes, f"model.norm={norm}"])


def test_a_recipe_written_before_the_norms_existed_opens() -> None:
    new = recipe("digits-resnet20")
    fields = json.loads(new.model_dump_json())
    for key in ("norm", "stochastic_depth", "dropout"):
        del fields["model"][key]
    assert Recipe.from_json(json.dumps(fields)) == new


def test_a_model_can_be_named() -> None:
    changed = recipe("cifar10-resnet20").with_changes(["model=resnet32-B"])
    assert changed == recipe("cifar10-resnet32-B")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("itertions=3", "did you mean 'iterations'"),
        ("model.shortcutt=A", "did you mean 'model.shortcut'"),
        ("warmup.capp=3", "did you mean 'warmup.cap'"),
        ("name.first=x", "no recipe key 'name.first'"),
        ("iterations", "KEY=VALUE"),
        ("iterations=many", "'iterations' cannot be 'many'"),
        ("iterations=2.5", "'iterations' cannot be 2.5"),
        ("iterations=true", "'iterations' cannot be True"),
        ("iterations=0", "greater than or equal to 1"),
        ("momentum=1.5", "less than 1"),
        ("drops=[0.75, 0.5]", "must increase"),
        ("drops=[0.5, 1.0]", "must increase"),
        ("virtual_gpus=3", "cannot be split into 3"),
        ("virtual_gpus=128", "at least 2 images"),
        ("data=cifar100", "'data' cannot be 'cifar100'"),
        ("precision=fp16", "'precision' cannot be 'fp16'"),
        ("model=resnet21", "did you mean"),
        ("flip=false", "did you mean 'augmentation.flip'"),
        ("augmentation.flip=1", "'augmentation.flip' cannot be 1"),
        ("augmentation=cut-out", "no augmentation 'cut-out'"),
        ("augmentation=scale-crop", "'scale-crop' is not for data 'digits'"),
        ("augmentation.size=3", "'pad-and-crop' has no 'size': first set augmentation=scale-crop"),
        ("model.norm=grop", "did you mean 'group'"),
        ("model.norm=layer", "available: batch, group, noisy-batch, none"),
        ("model.norm.groups=4", "model.norm 'batch' has no 'groups': first set model.norm=group"),
        ('model.norm=["group"]', "model.norm is a list of length 1: give one entry for each"),
        ("model.shortcut=D", "'model.shortcut' cannot be 'D': input should be 'A', 'B' or 'C'"),
        ("model.dropout=1", "'model.dropout' cannot be 1.0: input should be less than 1"),
        ("plateau={}", "set drops=[] or plateau=null"),
        ("data=pictures", 'needs the section "pictures"'),
        ("batch_norm=frozen", "with `weights`"),
        ("model.blocks=[3, 3]", "must have the same length"),
        ("model.blocks=[0, 0, 0]", "greater than 0"),
        ("drops=[NaN]", "finite"),
        (f"iterations={'[' * 100_000}", "--set iterations: nested too deeply"),
        (f"iterations={'9' * 5000}", "--set iterations: a number has too many digits"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(change: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        recipe("digits-resnet110").with_changes([change])
    assert "\n" not in str(caught.value)


def test_python_values_change_a_recipe_as_the_command_does() -> None:
    here = recipe("cifar10-resnet110")
    config = config_named("resnet32")
    for changes, fields, command in (
        ({}, {"learning_rate": 0.2, "iterations": 10}, ["learning_rate=0.2", "iterations=10"]),
        ({}, {"drops": (0.25, 0.5)}, ["drops=[0.25, 0.5]"]),
        ({}, {"learning_rate": 1}, ["learning_rate=1"]),
        ({}, {"warmup": None}, ["warmup=null"]),
        ({}, {"warmup": Warmup(cap=7)}, ["warmup.cap=7"]),
        ({"warmup.cap": 7}, {"keep_every": 5}, ["warmup.cap=7", "keep_every=5"]),
        ({"model": "resnet32-B"}, {}, ["model=resnet32-B"]),
        ({"model": config, "model.classes": 26}, {}, ["model=resnet32", "model.classes=26"]),
    ):
        changed = here.with_(changes, **fields)
        assert changed.differences(here.with_changes(command)) == []
        assert changed != here
    photographs = recipe("imagenet-resnet18")
    assert photographs.with_(augmentation="resized-crop").augmentation.kind == "resized-crop"
    assert here.with_() == here


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"model.clases": 1}, "did you mean 'model.classes'"),
        ({"learning_rate": -1.0}, "'learning_rate' cannot be -1.0"),
        ({"learning_rate": "fast"}, "'learning_rate' cannot be 'fast'"),
        ({"learning_rate": float("nan")}, "'learning_rate' cannot be nan"),
        ({"iterations": 1.5}, "'iterations' cannot be 1.5"),
        ({"iterations": object}, "'iterations' cannot be a type: <class 'object'>"),
        ({"keep_every": 0}, "'keep_every' cannot be 0"),
        ({"recompute": "all"}, "'recompute' cannot be 'all'"),
        ({"model": "resnet21"}, "did you mean"),
    ],
)
def test_python_values_are_checked_in_one_line(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        recipe("digits-resnet110").with_(changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "default", "other"), [("keep_every", None, 5), ("recompute", "none", "blocks")]
)
def test_fields_added_later_are_not_written_at_their_defaults(
    key: str, default: object, other: object
) -> None:
    """An older reslab refuses keys that it does not know."""
    here = recipe("digits-resnet20")
    assert f'"{key}"' not in here.model_dump_json()
    changed = here.with_({key: other})
    assert Recipe.from_json(changed.model_dump_json()) == changed
    assert here.differences(changed) == [f"{key}: {default} -> {other}"]
    assert changed.with_({key: default}) == here
    assert changed.with_changes([f"{key}={json.dumps(default)}"]) == here


def test_an_unknown_key_in_a_file_is_refused() -> None:
    fields = json.loads(recipe("digits-resnet20").model_dump_json()) | {"bn_wd": 0}
    with pytest.raises(ValueError, match="no recipe key 'bn_wd'"):
        Recipe.from_json(json.dumps(fields))


def test_differences_name_each_field() -> None:
    here = recipe("cifar10-resnet20")
    assert here.differences(here) == []
    there = here.with_changes(["iterations=10", "model.shortcut=B"])
    assert here.differences(there) == ["model.shortcut: A -> B", "iterations: 64000 -> 10"]


def test_the_base_is_no_recipe() -> None:
    assert [isabstract(it) for it in (RunRecipe, Recipe, FinderRecipe)] == [True, False, False]


def test_another_task_has_fields_and_defaults_of_its_own() -> None:
    it = FinderRecipe(name="finder")
    assert FinderRecipe.from_json(it.model_dump_json()) == it
    assert (it.learning_rate, it.momentum) == (0.001, 0.9)
    changed = it.with_changes(["shorter=400", "warmup.cap=7"])
    assert (changed.shorter, changed.warmup and changed.warmup.cap) == (400, 7)
    assert it.with_changes(["shorter=paper"]).batch_size == 8
    with pytest.raises(ValueError, match="did you mean 'shorter'"):
        it.with_changes(["shortr=1"])
    for key, value in (("held_out", 5), ("recompute", "blocks")):
        with pytest.raises(ValueError, match=f"no recipe key '{key}'"):
            it.with_({key: value})


def test_a_file_begins_with_what_the_task_is() -> None:
    keys = list(json.loads(FinderRecipe(name="finder").model_dump_json()))
    assert keys[:4] == ["name", "task", "shorter", "weights"]
    keys = list(recipe("digits-resnet20").model_dump())
    assert keys[:4] == ["name", "task", "model", "data"]
    assert keys[-1] == "log_every"


def test_a_recipe_without_a_task_is_a_classification() -> None:
    it = recipe("digits-resnet20")
    fields = json.loads(it.model_dump_json())
    del fields["task"]
    assert Recipe.from_json(json.dumps(fields)) == it


def test_no_recipe_is_read_as_one_of_another_task() -> None:
    with pytest.raises(ValueError, match=r"'task' cannot be 'detection'|no recipe key 'shorter'"):
        Recipe.from_json(FinderRecipe(name="finder").model_dump_json())
    with pytest.raises(ValueError, match="'task' cannot be 'detection'"):
        recipe("digits-resnet20").with_changes(["task=detection"])


def test_tasks_differ_in_what_only_one_of_them_has() -> None:
    found = recipe("cifar10-resnet20").differences(FinderRecipe(name="finder"))
    assert found[0] == "task: classification -> detection"
    assert {"shorter: None -> 600", "data: cifar10 -> None"} <= set(found)
    assert not any(line.startswith(("name", "momentum", "iterations")) for line in found)
