"""Find a network's tensors in the nested object that a training program saved."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from reslab.models.convert.layouts import LAYOUTS, with_slashes

DEEPEST = 32  # levels of nesting that are followed
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


def named_tensors(content: Any, file: Path) -> dict[str, Tensor]:
    """Return all tensors in nested mappings and sequences, by keys joined with dots."""
    tensors: dict[str, Tensor] = {}
    for name, value in leaves(content, "", file):
        if isinstance(value, Tensor) and name in tensors:
            raise ValueError(f"{file}: two tensors are called {name!r}")
        if isinstance(value, Tensor):
            tensors[name] = value
    return tensors


def leaves(content: Any, name: str, file: Path, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings and sequences with their full names."""
    if depth > DEEPEST:
        raise ValueError(f"{file} is nested more than {DEEPEST} levels deep")
    if isinstance(content, Mapping):
        items: Iterable[tuple[Any, Any]] = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    else:
        yield name, content
        return
    for key, value in items:
        yield from leaves(value, f"{name}.{key}" if name else str(key), file, depth + 1)


def plain_facts(content: Any) -> Any:
    """Return nested mappings and sequences without the tensors in them."""
    if isinstance(content, Mapping):
        facts = {str(key): plain_facts(value) for key, value in content.items()}
        return {key: value for key, value in facts.items() if value is not None}
    if isinstance(content, list | tuple):
        return [plain_facts(value) for value in content if not isinstance(value, Tensor)]
    return content if isinstance(content, str | int | float | bool) else None


def network_prefix(tensors: Mapping[str, Tensor], file: Path) -> str:
    """Return the prefix, of wrappers and modules, under which the names of a layout are found.

    Of a network and its running average, this is the network's. Return "" if no layout's names are
    found; raise ValueError if there are several networks.
    """
    found = prefixes(tensors)
    outermost = [p for p in found if not any(p != q and p.startswith(q) for q in found)]
    trained = [prefix for prefix in outermost if not AVERAGED.search(prefix)] or outermost
    if len(trained) > 1:
        names = ", ".join(prefix.rstrip(".") for prefix in trained)
        raise ValueError(f"{file} holds {len(trained)} networks, {names}: save the one you want")
    return trained[0] if trained else ""


def prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return each prefix under which all marks of a layout are found, in the order of the file."""
    names = dict.fromkeys([*tensors, *with_slashes(dict(tensors))])
    found = dict[str, None]()
    for layout in LAYOUTS:
        first = layout.marks[0]
        starts = [name.removesuffix(first) for name in names if name.endswith(first)]
        for start in starts:
            whole = not start or start.endswith(".")
            if whole and all(f"{start}{mark}" in names for mark in layout.marks):
                found[start] = None
    return list(found)


def without_network(tensors: Iterable[str], prefix: str) -> tuple[str, ...]:
    """Return what else a file holds: the shortest names below which no tensor of the network is."""
    groups = dict[str, None]()
    for name in tensors:
        if name.startswith(prefix):
            continue
        parts = name.split(".")
        starts = (".".join(parts[:count]) for count in range(1, len(parts)))
        groups[next((start for start in starts if not prefix.startswith(f"{start}.")), name)] = None
    return tuple(groups)
