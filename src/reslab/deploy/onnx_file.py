"""Exports to ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reslab.deploy.classifier import classifier, image_classifier
from reslab.deploy.export import Draft
from reslab.deploy.packages import must_have
from reslab.deploy.prepare import image_preparation, must_be_exact
from reslab.deploy.proof import Limits
from reslab.models.model_file import Model

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIX = ".onnx"
# a grey level more or less in a few pixels; and rounding alone
RESIZED = Limits(probability=2e-3, relative=0.05)
EXACT = Limits(probability=1e-5, relative=1e-3)
# a net in int8 is often unsure of seeded images; its loss is measured on others
INT8 = Limits(probability=None, relative=None, agreement=0.8)


def onnx_draft(model: Model, *, exact: bool) -> Draft:
    """Return the export of a model to ONNX, with all its preprocessing inside.

    If `exact`, images are resized exactly as by Pillow.
    """
    must_have("onnx", "onnxruntime")
    graph = image_classifier(model, exact=exact)
    return Draft(
        contents=lambda metadata: {SUFFIX: onnx_bytes(graph, metadata)},
        takes="images",
        limits=EXACT if exact or must_be_exact(model) else RESIZED,
    )


def int8_draft(model: Model, network: ModelProto, *, exact: bool) -> Draft:
    """Return the export of a model to ONNX with its network in int8, given by `int8_network`.

    The preprocessing is that of `onnx_draft`, which proves it: rounding hides small mistakes.
    """
    graph = classifier(image_preparation(model, exact=exact), network)
    return Draft(
        contents=lambda metadata: {SUFFIX: onnx_bytes(graph, metadata)},
        takes="images",
        limits=INT8,
    )


def onnx_bytes(graph: ModelProto, metadata: Mapping[str, str]) -> bytes:
    """Return the content of an ONNX file with this metadata."""
    from onnx import helper

    helper.set_model_props(graph, dict(metadata))
    return graph.SerializeToString(deterministic=True)
