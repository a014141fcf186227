"""What runs of detectors say, in sentences that the numbers alone decide."""

from collections.abc import Sequence

from reslab.studies.records import Detectors, Seeds
from reslab.training.curves import Curve

MARK = 50.0  # mAP@.5 in percent: how soon is it reached?


def detector_findings(groups: Sequence[Detectors], labels: Sequence[str]) -> list[str]:
    """What each found, then each pair of a trained and an untrained trunk."""
    found = [precision_finding(group, label) for group, label in zip(groups, labels, strict=True)]
    for trained, untrained in pairs(groups):
        found += [difference(trained, untrained), *sooner(trained, untrained)]
        if trained.first.recipe.model.norm != untrained.first.recipe.model.norm:
            found.append(caution(trained, untrained))
    return found


def precision_finding(group: Detectors, label: str) -> str:
    """The precisions of one recipe, with all that they are of."""
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
    """Mean and spread, in percent."""
    return f"{seeds.mean:.2f} %" + (f" ± {seeds.std:.2f}" if len(seeds.values) > 1 else "")


def pairs(groups: Sequence[Detectors]) -> list[tuple[Detectors, Detectors]]:
    """Trained and untrained trunks that were tested on the same and trained for as long."""
    return [
        (trained, untrained)
        for trained in groups
        for untrained in groups
        if trained.first.starts_trained
        and not untrained.first.starts_trained
        and comparable(trained) == comparable(untrained)
    ]


def comparable(group: Detectors) -> tuple[object, ...]:
    """What two recipes must share for their difference to be one of their trunks' weights."""
    recipe, report = group.first.recipe, group.first.report
    network = group.first.network_label
    return network, recipe.data, report["protocol"], report["n"], recipe.iterations


def difference(trained: Detectors, untrained: Detectors) -> str:
    """In points, and what one run does not tell."""
    gap = trained.map_50.mean - untrained.map_50.mean
    text = f"{gap:+.2f} points of mAP@.5"
    strict = trained.map_50_95, untrained.map_50_95
    if strict[0] and strict[1]:
        text += f" and {strict[0].mean - strict[1].mean:+.2f} of mAP@[.5:.95]"
    seeds = min(len(trained.runs), len(untrained.runs))
    alone = " One run each does not tell how far other seeds would lie apart." if seeds < 2 else ""
    return f"The trained trunk against the untrained one: {text}.{alone}"


def sooner(trained: Detectors, untrained: Detectors) -> list[str]:
    """How long each took to reach the mark; nothing if neither was watched on its way to it."""
    reached = [first_at(group, MARK) for group in (trained, untrained)]
    if reached == [None, None]:
        return []
    first, other = (
        f"after {at:,.0f} iterations" if at else "not at all while it was watched" for at in reached
    )
    every = max(group.first.recipe.eval_every for group in (trained, untrained))
    return [
        f"mAP@.5 of {MARK:.0f} % is reached {first} by the trained, {other} by the untrained one "
        f"(looked at every {every:,} iterations, on {watched(trained)})."
    ]


def first_at(group: Detectors, mark: float) -> float | None:
    """The first iteration at which the mean over the seeds was found at the mark or above."""
    iterations, values = Curve("", group.curve_rows()).watched()
    above = (i for i, value in zip(iterations, values, strict=True) if value >= mark)
    return next(above, None)


def watched(group: Detectors) -> str:
    """Which images the curves on the way are of."""
    count = min(group.first.recipe.watched, group.first.report["n"])
    return f"the first {count:,} images of {group.first.test_set}"


def caution(trained: Detectors, untrained: Detectors) -> str:
    """That the two differ in more than in their first weights."""
    names = {
        "frozen": "batch norm as a fixed map, of the classifier's statistics",
        "recompute": "batch norm as a fixed map, of statistics computed anew",
        "group": "group normalisation",
    }
    return (
        f"They differ in more than first weights: the trained trunk has "
        f"{names[trained.first.recipe.model.norm]}; the untrained one, which has none, "
        f"{names[untrained.first.recipe.model.norm]}."
    )
