"""What the runs say, in sentences that the numbers alone decide."""

from collections.abc import Mapping, Sequence
from statistics import mean

from reslab.analysis.responses import Response
from reslab.studies.records import Classifiers


def classifier_findings(groups: Sequence[Classifiers]) -> list[str]:
    """What a set of runs says of depth and of shortcuts, each data set for itself."""
    found = []
    for data in dict.fromkeys(group.first.recipe.data for group in groups):
        family = [group for group in groups if group.first.recipe.data == data]
        found += [*depth_findings(family), *option_findings(family)]
    return found


def depth_findings(groups: Sequence[Classifiers]) -> list[str]:
    """The deepest against the shallowest net of each kind; then plain against residual."""
    found, costs = [], {}
    for kind in dict.fromkeys(group.first.kind for group in groups):
        family = sorted((g for g in groups if g.first.kind == kind), key=lambda g: g.first.depth)
        shallow, deep = family[0], family[-1]
        if shallow.first.depth < deep.first.depth:
            found.append(deeper(shallow, deep))
            costs[kind] = deep.train_error.mean - shallow.train_error.mean
    plain = costs.pop("plain", 0.0)
    if plain > 0:
        found += [rescued(kind, plain, cost) for kind, cost in costs.items()]
    return found


def deeper(shallow: Classifiers, deep: Classifiers) -> str:
    """One sentence on the training and the test error of a deeper net."""
    train = deep.train_error.mean - shallow.train_error.mean
    test = deep.test_error.mean - shallow.test_error.mean
    return (
        f"{deep.first.label} against {shallow.first.label}: training error "
        f"{deep.train_error.mean:.2f} % against {shallow.train_error.mean:.2f} % "
        f"({train:+.2f} points), test error {deep.test_error.mean:.2f} % against "
        f"{shallow.test_error.mean:.2f} % ({test:+.2f} points)."
    )


def rescued(kind: str, plain: float, residual: float) -> str:
    """How much of what depth costs plain nets, in points of training error, shortcuts take away."""
    if residual <= 0:
        share = "all"
    else:
        share = f"{100 * (1 - residual / plain):.0f} %" if residual < plain else "nothing"
    return (
        f"Degradation: the depth costs plain nets {plain:.2f} points of training error and "
        f"{kind} {residual:+.2f}; the shortcuts take away {share} of it."
    )


def option_findings(groups: Sequence[Classifiers]) -> list[str]:
    """At each depth: the shortcut options by test error, and how far they lie apart."""
    found = []
    residual = [group for group in groups if group.first.recipe.model.shortcut]
    for depth in dict.fromkeys(group.first.depth for group in residual):
        family = [group for group in residual if group.first.depth == depth]
        if len({group.first.kind for group in family}) < 2:
            continue
        order = sorted(family, key=lambda g: g.test_error.mean)
        names = ", ".join(f"{g.first.kind[-1]} {g.test_error.mean:.2f} %" for g in order)
        apart = order[-1].test_error.mean - order[0].test_error.mean
        seeds = min(len(g.runs) for g in family)
        caution = "; one seed does not tell such gaps from chance" if seeds < 2 else ""
        found.append(f"{depth} layers, test error by option: {names} ({apart:.2f} apart){caution}.")
    return found


def response_findings(of_models: Mapping[str, Sequence[Response]]) -> list[str]:
    """The nets by the mean strength of their responses, weakest first."""
    means = {label: mean(r.std for r in responses) for label, responses in of_models.items()}
    order = ", ".join(
        f"{label} {means[label]:.3f}" for label in sorted(means, key=means.__getitem__)
    )
    return [f"Mean standard deviation of the layer responses, smallest first: {order}."]
