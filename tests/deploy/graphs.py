"""Run ONNX graphs in ONNX Runtime."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto
from onnxruntime import InferenceSession

from reslab.deploy.graph import Graph, value
from reslab.deploy.steps import Steps

Outputs = list[np.ndarray]


def session_of(model: ModelProto) -> InferenceSession:
    """Check a graph and open it."""
    onnx.checker.check_model(model, full_check=True)
    return InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run_steps(
    add: Callable[[Steps, list[str]], Sequence[str]], inputs: Mapping[str, np.ndarray]
) -> Outputs:
    """Return the outputs of the nodes that `add` adds for inputs of these names."""
    return runner(add, inputs)(inputs)


def runner(
    add: Callable[[Steps, list[str]], Sequence[str]], inputs: Mapping[str, np.ndarray]
) -> Callable[[Mapping[str, np.ndarray]], Outputs]:
    """Return a function that computes the nodes which `add` adds, for inputs like `inputs`."""
    graph = Graph()
    declared = [
        value(name, array.dtype.type, [f"{name} {axis}" for axis in range(array.ndim)])
        for name, array in inputs.items()
    ]
    outputs = add(Steps(graph, "test"), list(inputs))
    model = graph.model(declared, [ValueInfoProto(name=name) for name in outputs])
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda given: [np.asarray(output) for output in session.run(None, dict(given))]
