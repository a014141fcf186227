import pytest

from reslab.studies.page.findings import (
    classifier_findings,
    depth_findings,
    detector_findings,
    first_iteration_at,
    option_findings,
    response_findings,
)
from reslab.studies.records import group_by_recipe


def labelled(records):
    return {group.first.label: group for group in group_by_recipe(records)}


def test_degradation_is_measured_on_both_kinds_of_net(degradation) -> None:
    plain, residual, together = depth_findings(group_by_recipe(degradation))
    assert plain.startswith("plain-56 vs. plain-20: training error 25.00 % vs. 0.50 %")
    assert "+24.50 points" in plain
    assert residual.startswith("ResNet-56 vs. ResNet-20: training error 0.60 %")
    # 1 - 0.5 / 24.5
    assert "adds 24.50 points of training error to plain nets" in together
    assert "+0.50 to ResNet A; the shortcuts avoid 98 % of the increase" in together


@pytest.mark.parametrize(
    ("plain56", "resnet56", "avoided"), [(9.0, 0.0, "all"), (9.0, 30.0, "none"), (0.1, 0.5, None)]
)
def test_findings_follow_the_numbers(classifier, plain56, resnet56, avoided) -> None:
    errors = {"plain20": 0.5, "plain56": plain56, "resnet20": 0.1, "resnet56": resnet56}
    records = [classifier(f"digits-{model}", train_error=error) for model, error in errors.items()]
    findings = depth_findings(group_by_recipe(records))
    if avoided is None:  # the plain net did not degrade: there is nothing to avoid
        assert len(findings) == 2
    else:
        assert f"avoid {avoided} of the increase" in findings[2]


def test_nets_of_different_sets_are_not_compared(classifier) -> None:
    records = [classifier("digits-resnet20"), classifier("cifar10-resnet56", train_error=50.0)]
    assert classifier_findings(group_by_recipe(records)) == []


def test_one_depth_alone_has_no_finding(classifier) -> None:
    assert depth_findings(group_by_recipe([classifier("digits-plain20")])) == []


def test_options_are_ordered_by_test_error(classifier) -> None:
    errors = {"A": 9.0, "B": 8.5, "C": 8.0}
    records = [classifier(f"digits-resnet20-{o}", test_error=e) for o, e in errors.items()]
    (finding,) = option_findings(group_by_recipe(records))
    assert "C 8.00 %, B 8.50 %, A 9.00 % (a gap of 1.00 points; with one seed" in finding


def test_nets_with_other_parts_are_compared_among_themselves(classifier) -> None:
    """The degradation of plain nets with group norm says nothing about nets with batch norm."""
    group = ("model.norm=group",)
    records = [
        classifier("digits-plain20", train_error=1.0, changes=group),
        classifier("digits-plain56", train_error=5.0, changes=group),
        classifier("digits-resnet20", train_error=1.0),
        classifier("digits-resnet56", train_error=3.0),
    ]
    plain, residual = depth_findings(group_by_recipe(records))
    assert plain.startswith("plain-56, group norm vs. plain-20, group norm: training error 5.00 %")
    assert residual.startswith("ResNet-56 vs. ResNet-20")
    both = [
        classifier("digits-resnet20", 2, train_error=1.0, changes=group),
        classifier("digits-resnet56", 2, train_error=2.0, changes=group),
    ]
    *_, together = depth_findings(group_by_recipe([*records, *both]))
    assert "adds 4.00 points" in together
    assert "+1.00 to ResNet A, group norm" in together
    options = [classifier("digits-resnet20-B", changes=group), *records[2:3]]
    assert option_findings(group_by_recipe(options)) == []


def test_the_smallest_responses_come_first() -> None:
    networks = {"plain-20": {"a": 3.0}, "ResNet-20": {"a": 1.0}}
    (finding,) = response_findings(networks)
    assert finding.index("ResNet-20") < finding.index("plain-20")


def test_detector_findings_state_the_numbers_and_their_origin(pair) -> None:
    text = " ".join(detector_findings(labelled(pair())))
    assert "pretrained trunk: mAP@.5 90.00 %, mAP@[.5:.95] 45.00 %" in text
    assert "one run, n=3 images" in text
    assert "+30.00 points of mAP@.5 and +15.00 of mAP@[.5:.95]" in text
    assert "One run each does not show" in text
    assert "group normalisation" in text


def test_the_mark_is_reached_at_the_first_point_above_it(pair) -> None:
    groups = labelled(pair(changes=("iterations=1000",)))
    pretrained, scratch = groups.values()
    assert first_iteration_at(pretrained, 50) == 600  # 54
    assert first_iteration_at(scratch, 50) == 900  # 54
    assert first_iteration_at(scratch, 61) is None
    text = " ".join(detector_findings(groups))
    assert "after 600 iterations with the pretrained trunk and after 900 iterations from" in text


def test_detectors_with_different_iterations_are_not_compared(detector) -> None:
    records = [detector(trained=True), detector(trained=False, changes=("iterations=9",))]
    assert len(detector_findings(labelled(records))) == 2


def test_several_seeds_have_a_spread(detector) -> None:
    records = [detector(seed, map_50=value) for seed, value in ((1, 80.0), (2, 84.0))]
    (finding,) = detector_findings(labelled(records))
    assert "mAP@.5 82.00 % ± 2.83, mAP@[.5:.95] 41.00 % ± 1.41" in finding
    assert "2 seeds, mean ± std" in finding


def test_only_nets_of_the_family_with_equal_parts_are_compared(own_parts, classifier) -> None:
    """A net of one's own has no known depth; another optimizer or set is compared by itself."""
    net, optimizer = "PreAct; 531 parameters; 0123456789ab", "AdamW(); 0123456789ab"
    shallow, deep = classifier("digits-resnet20"), classifier("digits-resnet56")
    apart = [
        own_parts("digits-resnet56", 2, net=net),
        own_parts("digits-resnet110", 3, optimizer=optimizer),
        own_parts("digits-resnet110", 4, data="letters; 40 images; 0123456789ab"),
    ]
    (finding,) = classifier_findings(group_by_recipe([shallow, deep, *apart]))
    assert finding.startswith("ResNet-56 vs. ResNet-20: ")
    more = own_parts("digits-resnet20", 5, optimizer=optimizer)
    findings = classifier_findings(group_by_recipe([shallow, deep, *apart, more]))
    assert findings[1].startswith("ResNet-110, AdamW() vs. ResNet-20, AdamW(): ")
