"""Exports to ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reslab.deploy.classifier import image_classifier
from reslab.deploy.export import Draft
from reslab.deploy.packages import must_have
from reslab.deploy.prepare import must_be_exact
from reslab.deploy.proof import Limits
from reslab.models.model_file import Model

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIX = ".onnx"
# a grey level more or less in a few pixels; and rounding alone
RESIZED = Limits(probability=2e-3, relative=0.03)
EXACT = Limits(probability=1e-5, relative=1e-3)


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


def onnx_bytes(graph: ModelProto, metadata: Mapping[str, str]) -> bytes:
    """Return the content of an ONNX file with this metadata."""
    from onnx import helper

    helper.set_model_props(graph, dict(metadata))
    return graph.SerializeToString(deterministic=True)
