"""Chains of small ONNX nodes that need no names of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from reslab.deploy.graph import NO_ATTRIBUTES, Graph

Operand = str | np.ndarray | np.generic  # the name of a value, or a constant
FLOAT, DOUBLE, INT64 = 1, 11, 7  # ONNX's numbers for the types of tensors


@dataclass
class Steps:
    """Adds nodes to a graph, and names them after their operators: "proposals.clip.min"."""

    graph: Graph
    prefix: str
    counts: dict[str, int] = field(default_factory=dict)

    def __call__(
        self, operator: str, *inputs: Operand, attributes: Mapping[str, object] = NO_ATTRIBUTES
    ) -> str:
        """Add a node and return the name of its output."""
        name = self.name(operator)
        return self.graph.add(operator, self.operands(inputs, name), name, attributes)

    def largest(self, values: Operand, count: Operand) -> str:
        """Add the indices of the `count` largest values, best first, ties by index: int64 [K].

        values [N], count int64 [1], at most N
        """
        from onnx import helper

        name = self.name("TopK")
        inputs, outputs = self.operands([values, count], name), [f"{name}.values", name]
        self.graph.nodes.append(helper.make_node("TopK", inputs, outputs, name=name))
        self.graph.names.update(outputs)
        return name

    def cast(self, x: str, kind: int) -> str:
        """Add a conversion to FLOAT, DOUBLE or INT64."""
        return self("Cast", x, attributes={"to": kind})

    def count(self, x: str) -> str:
        """Add the length of the first dimension, int64 [1]."""
        return self("Shape", x, attributes={"end": 1})

    def at(self, x: str, index: int, axis: int = -1) -> str:
        """Add the part of `x` at one index of an axis, which is dropped."""
        return self("Gather", x, np.array(index), attributes={"axis": axis})

    def below(self, stop: Operand) -> str:
        """Add the integers from 0 to `stop` - 1; stop int64 []."""
        return self("Range", np.array(0), stop, np.array(1))

    def name(self, operator: str) -> str:
        """Return an unused name for a node."""
        number = self.counts[operator] = self.counts.get(operator, 0) + 1
        suffix = f".{number}" if number > 1 else ""
        return f"{self.prefix}.{operator.lower()}{suffix}"

    def operands(self, inputs: Sequence[Operand], name: str) -> list[str]:
        """Return the names of operands; constants are added."""
        return [
            self.graph.constant(np.asarray(operand), f"{name}.in{index}")
            if not isinstance(operand, str)
            else operand
            for index, operand in enumerate(inputs)
        ]
