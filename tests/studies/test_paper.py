from reslab.studies.paper import deviations


def test_deviations_name_what_differs_from_the_paper(classifier) -> None:
    assert deviations(classifier("cifar10-resnet110").recipe) == []
    short = classifier("cifar10-resnet20", changes=("iterations=4000", "recompute=blocks"))
    assert deviations(short.recipe) == ["iterations: 64000 -> 4000"]
    option = classifier("cifar10-resnet20-B")
    assert deviations(option.recipe) == ["model.shortcut: A -> B"]
    assert "data: cifar10 -> digits" in deviations(classifier("digits-resnet20").recipe)


def test_deviations_of_a_detector_are_from_app_a(pair) -> None:
    trained, untrained = (deviations(record.recipe) for record in pair())
    trunk = "101 layers, option B, imagenet stem -> 20 layers, option A, cifar stem"
    assert f"model.trunk: {trunk}" in trained
    assert not any(line.startswith(("weights", "watched", "eval_every")) for line in trained)
    assert set(untrained) - set(trained) == {
        "model.norm: frozen -> group", "weights: from ImageNet -> None",
    }  # fmt: skip


def test_other_parts_are_named(classifier) -> None:
    changes = ("model.norm=group", "model.stochastic_depth=0.5", "model.dropout=0.1")
    lines = deviations(classifier("cifar10-resnet20", changes=changes).recipe)
    assert lines == [
        "model.norm.kind: batch -> group",
        "model.stochastic_depth: 0.0 -> 0.5",
        "model.dropout: 0.0 -> 0.1",
        "model.norm.groups: None -> 8",
    ]


def test_parts_of_ones_own_are_deviations(own_parts) -> None:
    net, data = "PreAct; 531 parameters; 0123456789ab", "letters; 40 images; 0123456789ab"
    record = own_parts("cifar10-resnet20", net=net, data=data, optimizer="AdamW(); 0123456789ab")
    assert deviations(record.recipe) == [
        f"net: the recipe's -> {net}",
        f"data: the paper's -> {data}",
        "optimizer: SGD with momentum -> AdamW(); 0123456789ab",
    ]
