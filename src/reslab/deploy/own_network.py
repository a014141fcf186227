"""The ONNX graph of a network of the user's own, traced by torch."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from reslab.deploy.graph import OPSET
from reslab.deploy.network import LOGITS, PREPARED
from reslab.deploy.packages import must_have
from reslab.deploy.prepare import centre_of
from reslab.models.model_file import Model

if TYPE_CHECKING:
    from onnx import ModelProto

EXAMPLE_IMAGES = 2  # a batch of one would be taken for a constant


def own_network_graph(model: Model) -> ModelProto:
    """Return the graph of a network of the user's own, for crops of its size and any batch.

    `prepared` are float32 [batch, 3, size, size], and `logits` are float32 [batch, classes]. Raise
    ValueError if the model has no crop size, or if torch cannot trace the network.
    """
    must_have("onnx", "onnxscript")
    from onnx.compose import add_prefix

    centre = centre_of(model)
    if centre is None:
        raise ValueError(
            "a network of your own is exported for crops of one size, and this model takes whole "
            "images: save it with Preprocessing.of(..., size=...)"
        )
    net = copy.deepcopy(model.net).eval().to(torch.float32)
    example = torch.zeros(EXAMPLE_IMAGES, 3, centre[1], centre[1])
    try:
        with without_messages(), torch.no_grad():
            program = torch.export.export(
                net, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
            graph = torch.onnx.export(
                program,
                input_names=[PREPARED],
                output_names=[LOGITS],
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"torch cannot export {model.own_net} for any number of images: {reason}"
        ) from None
    assert graph is not None
    # no name is then one of the preprocessing's
    return add_prefix(graph.model_proto, "net.", rename_inputs=False, rename_outputs=False)


@contextmanager
def without_messages() -> Iterator[None]:
    """Return a context without the warnings and log lines of torch's exporter."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
