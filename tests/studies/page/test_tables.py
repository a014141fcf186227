import csv
import io

from reslab.studies.page.tables import (
    Table,
    error_table,
    label_classifiers,
    paper_entry,
    parameters,
    response_table,
    responses_csv,
    runs_csv,
    unique,
)
from reslab.studies.records import group_by_recipe


def test_the_tables_agree(degradation) -> None:
    groups = label_classifiers(group_by_recipe(degradation))
    rows = list(csv.DictReader(io.StringIO(runs_csv(groups))))
    assert [row["network"] for row in rows] == ["plain-20", "plain-56", "ResNet-20", "ResNet-56"]
    assert [float(row["train_error"]) for row in rows] == [0.5, 25.0, 0.1, 0.6]
    markdown = error_table(groups).markdown().splitlines()
    assert len(markdown) == 2 + 4
    assert "853,018" in markdown[3]
    assert len({line.count("|") for line in markdown}) == 1


def test_a_network_of_ones_own_has_parameters_but_no_known_layers(own_parts, classifier) -> None:
    net = "PreAct; 531 parameters; 0123456789ab"
    records = [
        classifier("cifar10-resnet20"),
        own_parts("cifar10-resnet20", 2, net=net),
        own_parts("cifar10-resnet20", 3, net=net.replace("ab", "cd")),
        own_parts("cifar10-resnet20", 4, data="letters; 40 images; 0123456789ab"),
        own_parts("cifar10-resnet20", 5, data="shapes; 40 images; 0123456789ab"),
    ]
    groups = label_classifiers(group_by_recipe(records))
    labels = [
        "ResNet-20, data=cifar10", "PreAct #1", "PreAct #2",
        "ResNet-20, data=letters", "ResNet-20, data=shapes",
    ]  # fmt: skip
    assert list(groups) == labels
    rows = error_table(groups).rows
    assert [row[1] for row in rows] == ["cifar10"] * 3 + ["letters", "shapes"]
    assert [row[2] for row in rows] == ["20", "–", "–", "20", "20"]
    assert [row[3] for row in rows] == ["269,722", "531", "531", "269,722", "269,722"]
    assert [row[6] for row in rows] == ["8.75", "–", "–", "–", "–"]
    text = list(csv.DictReader(io.StringIO(runs_csv(groups))))
    assert [row["layers"] for row in text] == ["20", "", "", "20", "20"]
    assert [row["data"] for row in text] == [row[1] for row in rows]


def test_a_name_breaks_no_table() -> None:
    assert Table("t", ("a",), [("x|<b>",)]).markdown() == "| a |\n| --- |\n| x\\|&lt;b> |\n"


def test_recipes_with_one_network_are_labelled_by_their_differences(classifier) -> None:
    whole, digits = classifier("cifar10-resnet20"), classifier("digits-resnet20")
    short = classifier("cifar10-resnet20", seed=2, changes=("iterations=4000", "eval_every=9"))
    many = ("iterations=9", "batch_size=64", "learning_rate=0.2")
    other = classifier("cifar10-resnet20", seed=3, changes=many)

    def labels(*records) -> list[str]:
        return list(label_classifiers(group_by_recipe(records)))

    assert labels(whole, short, classifier("cifar10-resnet56")) == [
        "ResNet-20, iterations=64000", "ResNet-20, iterations=4000", "ResNet-56",
    ]  # fmt: skip
    assert labels(whole, digits) == ["ResNet-20, data=cifar10", "ResNet-20, data=digits"]
    assert labels(whole, other) == ["ResNet-20 #1", "ResNet-20 #2"]


def test_two_runs_of_one_net_get_different_labels() -> None:
    assert unique(["a", "b", "a"]) == ["a #1", "b", "a #2"]


def test_the_papers_number_is_shown_only_for_its_net_and_set(classifier) -> None:
    assert paper_entry(classifier("cifar10-resnet20")) == "8.75"
    assert paper_entry(classifier("cifar10-resnet110")) == "6.43 (6.61 ± 0.16, n=5)"
    assert paper_entry(classifier("digits-resnet20")) == ""
    assert paper_entry(classifier("cifar10-plain20")) == ""
    assert paper_entry(classifier("cifar10-resnet20-B")) == ""


def test_responses_are_summed_up_and_listed() -> None:
    networks = {"plain-20": {"stem.0": 1.5, "stages.0": 0.5}}
    assert response_table(networks).rows == [["plain-20", "2", "1.000", "0.500", "1.500"]]
    assert responses_csv(networks).splitlines()[1:] == [
        "plain-20,1,stem.0,1.5", "plain-20,2,stages.0,0.5",
    ]  # fmt: skip


def test_the_spreadsheet_has_a_line_for_each_run(pair) -> None:
    groups = {group.first.label: group for group in group_by_recipe(pair())}
    rows = list(csv.DictReader(io.StringIO(runs_csv(groups))))
    assert [(row["map_50"], row["norm"], row["weights"]) for row in rows] == [
        ("90.0", "frozen", "a" * 64), ("60.0", "group", "none"),
    ]  # fmt: skip


def test_both_norms_have_as_many_parameters(pair) -> None:
    trained, untrained = (record.recipe.model for record in pair())
    assert parameters(trained) == parameters(untrained) == 293_808
