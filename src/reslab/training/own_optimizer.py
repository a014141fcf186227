"""An optimizer of the user's own: its checks, its state in checkpoints, its description."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, final

import torch
from torch import Tensor, nn

from reslab.models.layout import DIGITS
from reslab.training.optimizer import Facts, OptimizerState

BuildOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
EXAMPLE = "optimizer=lambda net: torch.optim.AdamW(net.parameters(), weight_decay=0.05)"
STATE, GROUPS = "optimizer.state", "optimizer.groups"  # prefixes of tensors in a checkpoint


@final
@dataclass(frozen=True)
class OwnOptimizer:
    """Any torch optimizer; the recipe's schedule sets its learning rate.

    A group whose rate is half of the optimizer's own trains at half the recipe's rate.
    """

    net: nn.Module
    torch_optimizer: torch.optim.Optimizer
    scales: tuple[float, ...]  # of each group's rate

    @property
    def parameters(self) -> list[nn.Parameter]:
        groups = self.torch_optimizer.param_groups
        return [weight for group in groups for weight in group["params"]]

    @property
    def names(self) -> dict[nn.Parameter, str]:
        """The name of each parameter in the network."""
        return {weight: name for name, weight in self.net.named_parameters()}

    def set_rate(self, rate: float) -> None:
        for group, scale in zip(self.torch_optimizer.param_groups, self.scales, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * scale)
            else:
                group["lr"] = rate * scale

    def step(self) -> None:
        self.torch_optimizer.step()

    def zero_grad(self) -> None:
        self.net.zero_grad()  # of all parameters, for the optimizer may leave some out

    def state(self) -> OptimizerState:
        """Return the state of each parameter and the settings of each group.

        Raise ValueError for a value that is neither a tensor nor JSON.
        """
        optimizer, names, tensors = self.torch_optimizer, self.names, {}
        facts: Facts = {"state": {}, "groups": []}
        for weight, values in optimizer.state.items():
            if weight not in names:
                raise not_storable(optimizer, f"state for {weight!r:.40}")
            name = names[weight]
            facts["state"][name] = split(values, f"{STATE}.{name}", tensors, optimizer)
        for index, group in enumerate(optimizer.param_groups):
            values = {key: value for key, value in group.items() if key != "params"}
            facts["groups"].append(split(values, f"{GROUPS}.{index}", tensors, optimizer))
        first, scale = optimizer.param_groups[0], self.scales[0]
        return OptimizerState(float(first["lr"]) / scale, tensors, facts)

    def restore(self, state: OptimizerState) -> None:
        assert state.facts is not None
        optimizer = self.torch_optimizer
        groups = []
        for index, group in enumerate(optimizer.param_groups):
            values = joined(state.facts["groups"][index], f"{GROUPS}.{index}", state.tensors)
            # JSON has no tuples
            values = {
                key: tuple(value) if isinstance(group.get(key), tuple) else value
                for key, value in values.items()
            }
            groups.append(group | values)
        weights = {name: weight for weight, name in self.names.items()}
        saved: dict[Tensor, dict[str, Any]] = {
            weights[name]: {
                key: like(weights[name], value)
                for key, value in joined(facts, f"{STATE}.{name}", state.tensors).items()
            }
            for name, facts in state.facts["state"].items()
        }
        load_state(optimizer, saved, groups)


def split(
    values: Mapping[str, Any],
    prefix: str,
    tensors: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> Facts:
    """Move the tensors among `values` to `tensors`, under names with `prefix`; return the rest.

    The keys of the tensors are listed under "tensors". Raise ValueError unless the rest is JSON.
    """
    rest: Facts = {}
    for key, value in values.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}.{key}"] = value
        elif is_json(value):
            rest[key] = json.loads(json.dumps(value))  # a copy, which training does not change
        else:
            raise not_storable(optimizer, f"{key!r} of type {type(value).__name__}")
    return {"values": rest, "tensors": [key for key in values if f"{prefix}.{key}" in tensors]}


def joined(facts: Facts, prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reassemble the values that `split` has split."""
    return facts["values"] | {key: tensors[f"{prefix}.{key}"] for key in facts["tensors"]}


def is_json(value: object) -> bool:
    try:
        return json.loads(json.dumps(value)) == (list(value) if type(value) is tuple else value)
    except (TypeError, ValueError):
        return False


def not_storable(optimizer: torch.optim.Optimizer, what: str) -> ValueError:
    return ValueError(
        f"{type(optimizer).__name__} holds {what}: a checkpoint stores tensors for each parameter, "
        "and JSON, so this optimizer cannot be resumed"
    )


def like(weight: Tensor, value: object) -> object:
    """Return a tensor of a weight's shape in the weight's memory format, which updates may need."""
    if not isinstance(value, Tensor) or value.shape != weight.shape:
        return value
    return torch.empty_like(weight, dtype=value.dtype, device=value.device).copy_(value)


def load_state(
    optimizer: torch.optim.Optimizer,
    saved: Mapping[Tensor, Mapping[str, Any]],
    groups: list[dict[str, Any]],
) -> None:
    """Load a state by parameter; torch decides on which device each tensor belongs.

    torch also converts tensors to the dtype of their parameter, and strings and lists to
    generators, among others; both conversions are undone.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    places = {weight: index for index, weight in enumerate(weights)}
    optimizer.load_state_dict(
        {
            "state": {places[weight]: dict(values) for weight, values in saved.items()},
            "param_groups": [
                group | {"params": [places[weight] for weight in group["params"]]}
                for group in groups
            ],
        }
    )
    for weight, values in saved.items():
        loaded = optimizer.state[weight]
        for key, value in values.items():
            if not isinstance(value, Tensor):
                loaded[key] = value
            elif loaded[key].dtype != value.dtype:
                loaded[key] = value.to(loaded[key].device)


def build_own_optimizer(net: nn.Module, build: BuildOptimizer) -> OwnOptimizer:
    """Build the user's optimizer for a network; raise ValueError if a run cannot use it."""
    if isinstance(build, type | torch.optim.Optimizer) or not callable(build):
        raise ValueError(
            f"optimizer must be a function from the network to its optimizer: {EXAMPLE}"
        )
    optimizer = build(net)
    if not isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise ValueError(f"the function returned a {kind}, not a torch.optim.Optimizer: {EXAMPLE}")
    name = type(optimizer).__name__
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"{name} computes the loss several times in a step (its step takes a closure); a run "
            "computes it once"
        )
    known = {id(weight) for weight in net.parameters()}
    groups = optimizer.param_groups
    foreign = [w for group in groups for w in group["params"] if id(w) not in known]
    if foreign:
        raise ValueError(
            f"{name} has {len(foreign)} tensors that are not parameters of the network that the "
            f"function was called with: {EXAMPLE}"
        )
    return OwnOptimizer(net, optimizer, rate_scales(optimizer))


def rate_scales(optimizer: torch.optim.Optimizer) -> tuple[float, ...]:
    """Return the rate of each group divided by that of the optimizer.

    Raise ValueError if there is no rate, or if it is 0.
    """
    name, groups = type(optimizer).__name__, optimizer.param_groups
    if any("lr" not in group for group in groups):
        raise ValueError(f"{name} has no learning rate (lr), which the recipe's schedule sets")
    rates = [float(group["lr"]) for group in groups]
    own = float(optimizer.defaults.get("lr", rates[0]))
    if own <= 0 or min(rates) <= 0:
        raise ValueError(
            f"{name} has a learning rate of {min(own, *rates):g}: give one above 0, which the "
            "recipe's schedule then replaces"
        )
    return tuple(rate / own for rate in rates)


def describe_optimizer(net: nn.Module, build: BuildOptimizer) -> str:
    """Return the optimizer's line in `Deviations`; raise ValueError if a run cannot use it.

    One step with zero gradients shows whether the state can be stored. The network keeps its
    weights and has no gradients afterwards.
    """
    own = build_own_optimizer(net, build)
    if build_own_optimizer(net, build).torch_optimizer is own.torch_optimizer:
        raise ValueError(
            "optimizer must be a function that builds a new one at each call; this one returned "
            f"the same {type(own.torch_optimizer).__name__} twice: {EXAMPLE}"
        )
    line = description(own)
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    for weight in own.parameters:
        weight.grad = torch.zeros_like(weight)
    try:
        own.step()
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        name = type(own.torch_optimizer).__name__
        raise ValueError(f"{name} fails to make a step with zero gradients: {error}") from error
    own.zero_grad()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.copy_(before[name])
    own.state()
    return line


def description(own: OwnOptimizer) -> str:
    """Return the optimizer's type, the settings that are not its defaults, and a digest of both.

    The digest also covers the groups: their members and the ratios of their rates.
    """
    kind, names = type(own.torch_optimizer), own.names
    everything = list(names.values())
    defaults = inspect.signature(kind).parameters
    groups = []
    for group in own.torch_optimizer.param_groups:
        settings = {
            key: value
            for key, value in sorted(group.items())
            if key in defaults
            and key not in ("params", "lr")
            and repr(value) != repr(defaults[key].default)
        }
        members = [names[weight] for weight in group["params"]]
        # so that the usual optimizer has the same digest for every network
        groups.append((settings, "all" if members == everything else members))
    changed = dict.fromkeys(f"{key}={value}" for group, _ in groups for key, value in group.items())
    digest = sha256(repr([kind.__name__, groups, own.scales]).encode()).hexdigest()[:DIGITS]
    return f"{kind.__name__}({', '.join(changed)}); {digest}"
