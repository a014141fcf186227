"""The files of an OpenVINO export: the graph, .xml, and beside it the weights, .bin."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reslab.deploy.classifier import crop_classifier
from reslab.deploy.export import Draft
from reslab.deploy.packages import must_have
from reslab.deploy.proof import Limits
from reslab.deploy.runtimes import INFO
from reslab.models.model_file import Model

if TYPE_CHECKING:
    from openvino import Model as OpenVinoModel

CROPS = Limits(probability=2e-4, relative=3e-3)  # rounding alone, as both get the same crops


def openvino_draft(model: Model) -> Draft:
    """Return the export of a model to OpenVINO.

    The graph takes crops, uint8 [batch, size, size, 3]: OpenVINO resizes without antialiasing, so
    images are resized and cropped before it.
    """
    must_have("onnx", "openvino")
    import openvino

    graph = openvino.Core().read_model(crop_classifier(model).SerializeToString())
    info = model_api_info(model)
    return Draft(
        contents=lambda metadata: openvino_files(graph, {**metadata, **info}),
        takes="crops",
        limits=CROPS,
    )


def openvino_files(graph: OpenVinoModel, metadata: Mapping[str, str]) -> dict[str, bytes]:
    """Return the content of the .xml and the .bin file of a graph, by suffix."""
    import openvino

    for key, text in metadata.items():
        graph.set_rt_info(text, [INFO, key])
    with tempfile.TemporaryDirectory(prefix="reslab-openvino-") as folder:
        file = Path(folder) / "model.xml"
        openvino.save_model(graph, str(file), compress_to_fp16=False)
        return {suffix: file.with_suffix(suffix).read_bytes() for suffix in (".bin", ".xml")}


def model_api_info(model: Model) -> dict[str, str]:
    """Return the keys that OpenVINO's Model API reads."""
    labels = " ".join(name.replace(" ", "_") for name in model.classes)
    return {"model_type": "Classification", "labels": labels, "resize_type": "crop"}
