"""What the runs say, in sentences that the numbers alone decide."""

from collections.abc import Mapping, Sequence
from statistics import mean

from reslab.study.records import Group
from reslab.study.responses import Response

# below this many points two training errors count as the same: a seed moves them as much
SAME_POINTS = 1.0


def depth_findings(groups: Sequence[Group]) -> list[str]:
    """For each kind of net: the deepest against the shallowest."""
    found = []
    kinds = dict.fromkeys(group.first.kind for group in groups)
    for kind in kinds:
        family = sorted((g for g in groups if g.first.kind == kind), key=lambda g: g.first.depth)
        if family[0].first.depth < family[-1].first.depth:
            found.append(deeper(family[0], family[-1]))
    return found


def deeper(shallow: Group, deep: Group) -> str:
    """One sentence on the training and the test error of a deeper net."""
    train = deep.mean_train_error - shallow.mean_train_error
    test = deep.mean_test_error - shallow.mean_test_error
    if train > SAME_POINTS:
        verdict = "it is harder to train: degradation"
    elif train < -SAME_POINTS:
        verdict = "it trains better than the shallower one"
    else:
        verdict = "it trains as well: no degradation"
    return (
        f"{deep.first.label} against {shallow.first.label}: training error "
        f"{deep.mean_train_error:.2f} % against {shallow.mean_train_error:.2f} % "
        f"({train:+.2f} points), test error {deep.mean_test_error:.2f} % against "
        f"{shallow.mean_test_error:.2f} % ({test:+.2f}); {verdict}."
    )


def option_findings(groups: Sequence[Group]) -> list[str]:
    """At each depth: the shortcut options by test error, and how far they lie apart."""
    found = []
    residual = [group for group in groups if group.first.recipe.model.shortcut]
    for depth in dict.fromkeys(group.first.depth for group in residual):
        family = [group for group in residual if group.first.depth == depth]
        if len({group.first.kind for group in family}) < 2:
            continue
        order = sorted(family, key=lambda g: g.mean_test_error)
        names = ", ".join(f"{g.first.kind[-1]} {g.mean_test_error:.2f} %" for g in order)
        apart = order[-1].mean_test_error - order[0].mean_test_error
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
