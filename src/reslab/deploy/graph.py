"""Write ONNX graphs node by node, with readable names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

import reslab
from reslab.deploy.packages import must_have

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

OPSET = 20  # the first in which Resize has all attributes used here in their final form
IR_VERSION = 9  # the oldest file format with this opset, so that older runtimes read it
NO_ATTRIBUTES: Mapping[str, object] = {}
Side = int | str  # a fixed length, or the name of a dynamic dimension


class Graph:
    """An ONNX graph under construction; nodes must be added in the order of computation.

    Each node has one output, called like the node itself, so values are referred to by name.
    """

    def __init__(self, prefix: str = "") -> None:
        must_have("onnx")
        self.prefix = prefix  # before the names of constants that are not named by the caller
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.names: set[str] = set()

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        name: str,
        attributes: Mapping[str, object] = NO_ATTRIBUTES,
    ) -> str:
        """Add a node whose output has the name `name`, and return the name.

        `operator` is one of ONNX's; an input that is left out is "".
        """
        from onnx import helper

        self._claim(name)
        node = helper.make_node(operator, list(inputs), [name], name=name)
        node.attribute.extend(helper.make_attribute(*pair) for pair in attributes.items())
        self.nodes.append(node)
        return name

    def constant(self, values: np.ndarray | Tensor | Sequence[int], name: str) -> str:
        """Add an initializer and return its name; a list of integers becomes int64."""
        from onnx import numpy_helper

        self._claim(name)
        if isinstance(values, Tensor):
            values = values.detach().cpu().contiguous().numpy()
        array = np.asarray(values, order="C")  # unlike ascontiguousarray, keeps scalars
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def number(self, value: float, kind: type[np.generic] = np.int64) -> str:
        """Return the name of a scalar initializer, which is added once."""
        name = f"{self.prefix}{np.dtype(kind).name}.{value}"
        return name if name in self.names else self.constant(np.array(value, kind), name)

    def numbers(self, *values: int) -> str:
        """Return the name of an initializer int64 [n], which is added once."""
        name = f"{self.prefix}list.{'.'.join(map(str, values))}"
        return name if name in self.names else self.constant(list(values), name)

    def _claim(self, name: str) -> None:
        assert name not in self.names, f"two values named {name}"
        self.names.add(name)

    def model(
        self, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
    ) -> ModelProto:
        """Return the graph as an ONNX model."""
        from onnx import helper

        graph = helper.make_graph(
            self.nodes, "reslab", list(inputs), list(outputs), initializer=self.initializers
        )
        return as_model(graph)

    def branch(self, output: str, kind: type[np.generic], name: str) -> GraphProto:
        """Return the graph as a branch of `If`; it may use values of the graph around it."""
        from onnx import helper

        result = value(output, kind, None)
        return helper.make_graph(self.nodes, name, [], [result], initializer=self.initializers)


def as_model(graph: GraphProto) -> ModelProto:
    """Return an ONNX model of one graph."""
    from onnx import helper

    return helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="reslab",
        producer_version=reslab.__version__,
    )


def value(name: str, kind: type[np.generic], shape: Sequence[Side] | None) -> ValueInfoProto:
    """Return the declaration of an input or output.

    Dimensions given as text are dynamic; without a shape, it is inferred.
    """
    from onnx import helper

    number_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return helper.make_tensor_value_info(name, number_type, shape and list(shape))


def join(first: ModelProto, second: ModelProto) -> ModelProto:
    """Return one model that feeds the output of `first` into the input of the same name.

    Neither may use the other's names for anything else; `onnx.compose.add_prefix` renames.
    """
    from onnx import helper

    names = [{node.name for node in model.graph.node} for model in (first, second)]
    names += [{tensor.name for tensor in model.graph.initializer} for model in (first, second)]
    assert len(set().union(*names)) == sum(map(len, names)), "two values have the same name"
    (link,) = first.graph.output
    assert [put.name for put in second.graph.input] == [link.name]
    graph = helper.make_graph(
        [*first.graph.node, *second.graph.node],
        "reslab",
        first.graph.input,
        second.graph.output,
        initializer=[*first.graph.initializer, *second.graph.initializer],
        value_info=[*first.graph.value_info, *second.graph.value_info],
    )
    model = as_model(graph)
    model.functions.extend([*first.functions, *second.functions])
    ours = {item.domain for item in model.opset_import}
    for item in [*first.opset_import, *second.opset_import]:
        if item.domain not in ours:
            ours.add(item.domain)
            model.opset_import.append(item)
    return model
