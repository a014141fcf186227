"""Find a network's tensors in the nested object that a training program saved."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from reslab.models.convert.layouts import LAYOUTS, with_slashes
from reslab.models.convert.pickles import Call
from reslab.models.convert.stored import NotWeights, Stored
from reslab.models.convert.torch_files import meaning

DEEPEST = 32  # levels of nesting
MOST_VALUES = 2_000_000
# parts of a name that mark a running average of the network, or the network that it should match
AVERAGED = re.compile(
    r"(^|[._])(ema|swa|shadow|averaged?|avg|mean|teacher|momentum|target|encoder_k)(?=[._]|$)", re.I
)


@dataclass(frozen=True)
class Weights:
    """The tensors of one network in another program's file, and the facts beside them."""

    tensors: dict[str, Tensor]  # by their names in the network; fp32, batch counts int64
    facts: dict[str, Any]  # all plain values of the file, nested as there: epoch, class_to_idx, ...
    left_out: tuple[str, ...] = ()  # full names, each of one tensor or of all below a wrapper
    prefix: str = ""  # removed from the names: wrappers and modules around the network
    beside: dict[str, Tensor] = field(default_factory=dict)  # all other tensors, by full names

    def fact(self, name: str) -> Any:
        """Return the value called `name` that is nested least deeply, or None."""
        level: list[Any] = [self.facts]
        while level:
            for mapping in level:
                if name in mapping:
                    return mapping[name]
            inner = [value for mapping in level for value in mapping.values()]
            level = [value for value in inner if isinstance(value, dict)]
        return None


@dataclass
class Content:
    """The tensors of a nested object by their full names, which are its keys joined with dots."""

    tensors: dict[str, Stored] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)  # the name of each tensor's container
    values: int = 0  # visited so far

    def facts(self, value: Any, name: str = "", container: str = "", depth: int = 0) -> Any:
        """Collect the tensors in a value, and return its facts, or None if it has none."""
        self.values += 1
        # references to one container, nested, would otherwise be followed for ever
        if depth > DEEPEST or self.values > MOST_VALUES:
            raise NotWeights(f"is nested over {DEEPEST} deep, or holds over {MOST_VALUES:,} values")
        if isinstance(value, Call):
            value = meaning(value)
        if isinstance(value, Stored):
            if name in self.tensors:
                raise NotWeights(f"holds two tensors that are called {name!r}")
            self.tensors[name] = value
            self.containers[name] = container
        if not isinstance(value, Mapping | list | tuple):
            return value if isinstance(value, str | int | float) else None
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        start = f"{name}." if name else ""
        inner = {str(key): self.facts(v, f"{start}{key}", name, depth + 1) for key, v in items}
        facts = {key: fact for key, fact in inner.items() if fact is not None}
        return facts if isinstance(value, Mapping) else [*facts.values()]

    def network(self, prefix: str) -> list[str]:
        """Return the names of the tensors with a prefix that belong to the network.

        If one container has all names of a layout, what is nested in it does not belong to them.
        """
        names = [name for name in self.tensors if name.startswith(prefix)]
        for container in dict.fromkeys(self.containers[name] for name in names):
            together = [name for name in names if self.containers[name] == container]
            if prefix in prefixes(together):
                return together
        return names


def network_prefix(tensors: Iterable[str]) -> str:
    """Return the prefix, of wrappers and modules, under which the names of a layout are found.

    If a file has a network and its running average, this is the network's prefix. Return "" if no
    layout's names are found; raise ValueError if there are several networks.
    """
    found = prefixes(tensors)
    outermost = [p for p in found if not any(p != q and p.startswith(q) for q in found)]
    trained = [prefix for prefix in outermost if not AVERAGED.search(prefix)] or outermost
    if len(trained) > 1:
        names = ", ".join(prefix.rstrip(".") for prefix in trained)
        raise NotWeights(f"holds {len(trained)} networks, {names}: save the one you want")
    return trained[0] if trained else ""


def prefixes(tensors: Iterable[str]) -> list[str]:
    """Return each prefix under which all marks of a layout are found, in the order of the file."""
    names = dict.fromkeys(tensors)
    names |= with_slashes(names)
    found = dict[str, None]()
    for layout in LAYOUTS:
        first = layout.marks[0]
        starts = [name.removesuffix(first) for name in names if name.endswith(first)]
        for start in starts:
            whole = not start or start.endswith(".")
            if whole and all(f"{start}{mark}" in names for mark in layout.marks):
                found[start] = None
    return list(found)


def without_network(tensors: Iterable[str], network: Collection[str]) -> tuple[str, ...]:
    """Return names for the tensors outside a network; modules without any of its tensors, once."""
    around = {start for name in network for start in beginnings(name)}
    groups = dict[str, None]()
    for name in tensors:
        if name not in network:
            groups[next((start for start in beginnings(name) if start not in around), name)] = None
    return tuple(groups)


def beginnings(name: str) -> list[str]:
    """Return the dotted names that contain `name`, outermost first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
