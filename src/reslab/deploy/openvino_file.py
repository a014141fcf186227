"""The files of an OpenVINO export: the graph, .xml, and beside it the weights, .bin."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from reslab.deploy.classifier import crop_classifier
from reslab.deploy.export import Draft
from reslab.deploy.packages import must_have
from reslab.deploy.proof import Limits
from reslab.deploy.runtimes import INFO
from reslab.models.model_file import Model

CROPS = Limits(probability=2e-4, relative=3e-3)  # rounding alone, as both get the same crops


def openvino_draft(model: Model) -> Draft:
    """Return the export of a model to OpenVINO, which takes crops."""
    return Draft(lambda metadata: openvino_files(model, metadata), takes="crops", limits=CROPS)


def openvino_files(model: Model, metadata: Mapping[str, str]) -> dict[str, bytes]:
    """Return the content of a model's .xml and .bin file, by suffix.

    The graph takes crops, uint8 [batch, size, size, 3]: OpenVINO resizes without antialiasing, so
    images are resized and cropped before it.
    """
    must_have("onnx", "openvino")
    import openvino

    graph = openvino.Core().read_model(crop_classifier(model).SerializeToString())
    for key, text in {**metadata, **model_api_info(model)}.items():
        graph.set_rt_info(text, [INFO, key])
    with tempfile.TemporaryDirectory(prefix="reslab-openvino-") as folder:
        file = Path(folder) / "model.xml"
        openvino.save_model(graph, str(file), compress_to_fp16=False)
        return {suffix: file.with_suffix(suffix).read_bytes() for suffix in (".bin", ".xml")}


def model_api_info(model: Model) -> dict[str, str]:
    """Return the keys that OpenVINO's Model API reads."""
    labels = " ".join(name.replace(" ", "_") for name in model.classes)
    return {"model_type": "Classification", "labels": labels, "resize_type": "crop"}
