"""Generate sentences that state the findings of runs, from the numbers alone."""

from collections.abc import Mapping, Sequence
from statistics import mean

from reslab.detection.average_precision.measure import AveragePrecision
from reslab.models.config import OPTIONS
from reslab.studies.page.tables import one_decimal
from reslab.studies.records import Classifiers, Detectors, Record, Seeds
from reslab.training.curves import Curve
from reslab.training.recipe import Recipe

MARK = 50.0  # mAP@.5 in percent; detectors are compared by when they reach it
NORMS = {
    "frozen": "frozen batch norm with the classifier's statistics",
    "recompute": "frozen batch norm with recomputed statistics",
    "group": "group normalisation",
}


def classifier_findings(groups: Sequence[Classifiers]) -> list[str]:
    """Return sentences on the effects of depth and shortcuts, for each data set."""
    findings = []
    families: dict[object, list[Classifiers]] = {}
    for group in groups:
        recipe = group.first.recipe
        if recipe.deviations.net is None:  # else neither depth nor shortcuts are known
            families.setdefault((recipe.data, recipe.deviations), []).append(group)
    for family in families.values():
        findings += [*depth_findings(family), *option_findings(family)]
    return findings


def depth_findings(groups: Sequence[Classifiers]) -> list[str]:
    """Compare the deepest with the shallowest net of each kind, then residual with plain nets.

    Only nets with the same additions to the paper's, such as group norm, are compared.
    """
    findings, costs = [], {}
    kinds = [(group.first.kind, group.first.network.additions) for group in groups]
    for kind in dict.fromkeys(kinds):
        family = [group for group, other in zip(groups, kinds, strict=True) if other == kind]
        family.sort(key=lambda group: group.first.depth)
        shallow, deep = family[0], family[-1]
        if shallow.first.depth < deep.first.depth:
            findings.append(compare_depths(shallow, deep))
            costs[kind] = deep.train_error.mean - shallow.train_error.mean
    for (kind, additions), cost in costs.items():
        plain = costs.get(("plain", additions), 0.0)
        if kind != "plain" and plain > 0:
            findings.append(compare_costs(", ".join([kind, *additions]), plain, cost))
    return findings


def compare_depths(shallow: Classifiers, deep: Classifiers) -> str:
    train = deep.train_error.mean - shallow.train_error.mean
    test = deep.test_error.mean - shallow.test_error.mean
    return (
        f"{deep.first.label} vs. {shallow.first.label}: training error "
        f"{deep.train_error.mean:.2f} % vs. {shallow.train_error.mean:.2f} % "
        f"({train:+.2f} points), test error {deep.test_error.mean:.2f} % vs. "
        f"{shallow.test_error.mean:.2f} % ({test:+.2f} points)."
    )


def compare_costs(kind: str, plain: float, residual: float) -> str:
    """State how much of the plain nets' degradation the residual nets avoid.

    `plain` and `residual` are the increases in training error with depth, in percentage points.
    """
    if residual <= 0:
        avoided = "all"
    else:
        avoided = f"{100 * (1 - residual / plain):.0f} %" if residual < plain else "none"
    return (
        f"Degradation: depth adds {plain:.2f} points of training error to plain nets and "
        f"{residual:+.2f} to {kind}; the shortcuts avoid {avoided} of the increase."
    )


def option_findings(groups: Sequence[Classifiers]) -> list[str]:
    """Rank the shortcut options by test error, at each depth with several options."""
    findings = []
    networks = [(group, group.first.network) for group in groups]
    residual = [group for group, net in networks if net.option in OPTIONS and not net.additions]
    for depth in dict.fromkeys(group.first.depth for group in residual):
        family = [group for group in residual if group.first.depth == depth]
        if len({group.first.kind for group in family}) < 2:
            continue
        order = sorted(family, key=lambda group: group.test_error.mean)
        names = ", ".join(f"{g.first.kind[-1]} {g.test_error.mean:.2f} %" for g in order)
        apart = order[-1].test_error.mean - order[0].test_error.mean
        seeds = min(len(group.runs) for group in family)
        caution = "; with one seed, such a gap may be chance" if seeds < 2 else ""
        findings.append(
            f"{depth} layers, test error by shortcut option: {names} "
            f"(a gap of {apart:.2f} points{caution})."
        )
    return findings


def response_findings(networks: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Rank the networks by the mean standard deviation of their responses."""
    means = sorted((mean(layers.values()), label) for label, layers in networks.items())
    order = ", ".join(f"{label} {value:.3f}" for value, label in means)
    return [f"Mean standard deviation of the layer responses, smallest first: {order}."]


def detector_findings(
    groups: Mapping[str, Detectors], trunks: Sequence[Record[Recipe]] = ()
) -> list[str]:
    """State the precision of each detector, then compare pretrained trunks with ones from scratch.

    `trunks` are the classifiers that the pretrained trunks come from, if known.
    """
    findings = [precision_finding(label, group) for label, group in groups.items()]
    for pretrained, scratch in comparable_pairs(list(groups.values())):
        findings += [compare_precisions(pretrained, scratch), *compare_speeds(pretrained, scratch)]
        norms = [NORMS[group.first.recipe.model.norm] for group in (pretrained, scratch)]
        if norms[0] != norms[1]:
            findings.append(
                f"They differ not only in their initial weights: the pretrained trunk has "
                f"{norms[0]}, the one from scratch {norms[1]}."
            )
    return [*findings, *map(trunk_finding, trunks)]


def precision_finding(label: str, group: Detectors) -> str:
    report, strict = group.first.report, group.map_50_95
    numbers = f"mAP@.5 {mean_and_std(group.map_50)}"
    if strict:
        numbers += f", mAP@[.5:.95] {mean_and_std(strict)}"
    runs = "one run" if len(group.runs) == 1 else f"{len(group.runs)} seeds, mean ± std"
    return (
        f"{label}: {numbers} on {group.first.test_set} ({report['protocol']}; {runs}, "
        f"n={report['n']:,} images) after {group.first.recipe.iterations:,} iterations."
    )


def mean_and_std(seeds: Seeds) -> str:
    return f"{seeds.mean:.2f} %" + (f" ± {seeds.std:.2f}" if len(seeds.values) > 1 else "")


def comparable_pairs(groups: Sequence[Detectors]) -> list[tuple[Detectors, Detectors]]:
    """Return pairs of detectors, pretrained and from scratch, under otherwise equal conditions."""
    return [
        (pretrained, scratch)
        for pretrained in groups
        for scratch in groups
        if pretrained.first.recipe.weights
        and not scratch.first.recipe.weights
        and conditions(pretrained) == conditions(scratch)
    ]


def conditions(group: Detectors) -> tuple[object, ...]:
    recipe, report = group.first.recipe, group.first.report
    network = group.first.network_label
    return network, recipe.data, report["protocol"], report["n"], recipe.iterations


def compare_precisions(pretrained: Detectors, scratch: Detectors) -> str:
    gap = pretrained.map_50.mean - scratch.map_50.mean
    text = f"{gap:+.2f} points of mAP@.5"
    strict = pretrained.map_50_95, scratch.map_50_95
    if strict[0] and strict[1]:
        text += f" and {strict[0].mean - strict[1].mean:+.2f} of mAP@[.5:.95]"
    seeds = min(len(pretrained.runs), len(scratch.runs))
    caution = " One run each does not show how much other seeds would differ." if seeds < 2 else ""
    return f"Pretrained trunk vs. from scratch: {text}.{caution}"


def compare_speeds(pretrained: Detectors, scratch: Detectors) -> list[str]:
    """State when each detector reached `MARK`; return nothing if neither did."""
    reached = [first_iteration_at(group, MARK) for group in (pretrained, scratch)]
    if reached == [None, None]:
        return []
    first, second = (
        f"after {iteration:,.0f} iterations" if iteration else "at no evaluation"
        for iteration in reached
    )
    every = max(group.first.recipe.eval_every for group in (pretrained, scratch))
    return [
        f"mAP@.5 reaches {MARK:.0f} % {first} with the pretrained trunk and {second} from scratch "
        f"(evaluated every {every:,} iterations on {watched_images(pretrained)})."
    ]


def first_iteration_at(group: Detectors, mark: float) -> float | None:
    """Return the first iteration at which the mean mAP@.5 over the seeds is `mark` or more."""
    iterations, values = Curve("", group.curve_rows()).watched()
    above = (i for i, value in zip(iterations, values, strict=True) if value >= mark)
    return next(above, None)


def watched_images(group: Detectors) -> str:
    """Return a phrase for the images evaluated during training."""
    count = min(group.first.recipe.watched, group.first.report["n"])
    return f"the first {count:,} images of {group.first.test_set}"


def trunk_finding(record: Record[Recipe]) -> str:
    """State which classifier the pretrained trunks' weights come from."""
    return (
        f"The pretrained trunk's weights come from {record.label}, trained on "
        f"{record.data} for {record.recipe.iterations:,} iterations in "
        f"{record.result['seconds']:.0f} s: test error {record.report['top1_error']:.2f} % "
        f"(n={record.report['n']:,} images). No digit in a test scene was used for training."
    )


def measured_findings(name: str, precision: AveragePrecision) -> list[str]:
    """State one average precision, with COCO's twelve numbers if measured."""
    coco = precision.as_dict().get("coco", {})
    numbers = [f"{key.upper().replace('_', ' ')} {one_decimal(coco[key])}" for key in coco]
    return [f"{name}: {precision}", *([", ".join(numbers)] if numbers else [])]
