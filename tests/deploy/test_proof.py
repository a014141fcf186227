"""The proof of an export fails for every kind of wrong file."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import AttributeProto, ModelProto, NodeProto, helper, numpy_helper
from tests.models.kinds import FIELDS, perturbed

from reslab.deploy.classifier import image_classifier
from reslab.deploy.export import Draft, try_draft, write_all, write_draft
from reslab.deploy.onnx_file import EXACT, RESIZED, onnx_bytes
from reslab.deploy.openvino_file import openvino_draft
from reslab.deploy.proof import BATCHES, Limits, ProofImages, Verdict, prove, same_names
from reslab.deploy.proof_images import LEAST, SEEDED, proof_images
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing

# crops large enough for ONNX's own resizing
PREPROCESSING = Preprocessing.of([123.7, 116.3, 103.5], [58.4, 57.1, 57.4], resize=76, size=66)
CONFIG = ResNetConfig.model_validate(FIELDS | {"widths": (4, 4, 4), "classes": 4})


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(perturbed(CONFIG), ("ant", "bee", "cat", "dog"), PREPROCESSING, {}, [])


@pytest.fixture(scope="module")
def images(model: Model) -> ProofImages:
    return proof_images(model, [], "")


def verdict_on(
    model: Model, graph: ModelProto, images: ProofImages, limits: Limits = RESIZED
) -> Verdict:
    """Prove `graph` as the export of `model`."""
    draft = Draft(lambda facts: {".onnx": onnx_bytes(graph, facts)}, "images", limits)
    return try_draft(model, draft, ".onnx", images)


def all_nodes(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """Yield the nodes of a graph and of its branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def set_attributes(graph: ModelProto, operator: str, changes: dict[str, object]) -> None:
    nodes = [node for node in all_nodes(graph.graph) if node.op_type == operator]
    assert nodes
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.name in changes:
            attribute.CopyFrom(helper.make_attribute(attribute.name, changes[attribute.name]))


def set_constant(graph: ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    (tensor,) = (tensor for tensor in graph.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))


def floor_the_crop(graph: ModelProto) -> None:
    (rounded,) = (node for node in all_nodes(graph.graph) if node.op_type == "Round")
    rounded.op_type = "Floor"


def swap_rows(values: np.ndarray) -> np.ndarray:
    return values[[1, 0, *range(2, len(values))]]


def swap_classes(graph: ModelProto) -> None:
    for part in ("fc.weight", "fc.bias"):
        set_constant(graph, part, swap_rows)


TAMPERINGS: dict[str, Callable[[ModelProto], None]] = {
    "mean": lambda graph: set_constant(graph, "prepare.mean", lambda mean: mean + 2),
    "mean of one colour": lambda graph: set_constant(
        graph, "prepare.mean", lambda mean: mean + np.array([[[[4]], [[0]], [[0]]]], np.float32)
    ),
    "no mean": lambda graph: set_constant(graph, "prepare.mean", np.zeros_like),
    "deviation": lambda graph: set_constant(graph, "prepare.deviation", lambda std: std * 1.05),
    "BGR": lambda graph: set_constant(
        graph, "stem.0.weight", lambda weight: np.ascontiguousarray(weight[:, ::-1])
    ),
    "no antialiasing": lambda graph: set_attributes(
        graph, "Resize", {"antialias": 0, "exclude_outside": 0}
    ),
    "corners aligned": lambda graph: set_attributes(
        graph, "Resize", {"coordinate_transformation_mode": "align_corners"}
    ),
    "corner of pixels": lambda graph: set_attributes(
        graph, "Resize", {"coordinate_transformation_mode": "asymmetric"}
    ),
    "nearest pixel": lambda graph: set_attributes(
        graph, "Resize", {"mode": "nearest", "antialias": 0, "exclude_outside": 0}
    ),
    "side resized to": lambda graph: set_constant(graph, "prepare.int64.76", lambda side: side + 1),
    "crop rounded down": floor_the_crop,
    "crop from the corner": lambda graph: set_constant(
        graph, "prepare.float64.0.5", lambda half: half * 0
    ),
    "height and width swapped": lambda graph: set_attributes(
        graph, "Transpose", {"perm": (0, 3, 2, 1)}
    ),
    "two classes swapped": swap_classes,
    "weights": lambda graph: set_constant(
        graph, "stages.2.0.body.2.weight", lambda weight: weight * 1.02
    ),
}


def test_a_right_export_passes(model: Model, images: ProofImages) -> None:
    resized = verdict_on(model, image_classifier(model), images)
    exact = verdict_on(model, image_classifier(model, exact=True), images, EXACT)
    assert resized.passed
    assert exact.passed
    assert exact.relative < resized.relative
    assert (exact.images, exact.sizes, exact.source) == (LEAST, LEAST, "seeded")
    assert exact.answers == LEAST + 3 * sum(BATCHES[1:])
    assert exact.as_dict()["batches"] == [1, 2, 7]
    assert "12 images (seeded), 12 sizes, batches 1/2/7 in onnxruntime" in str(exact)
    assert str(exact).endswith("all names equal")


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_a_wrong_export_fails(tampering: str, model: Model, images: ProofImages) -> None:
    graph = image_classifier(model)
    TAMPERINGS[tampering](graph)
    some = ProofImages(images.images[:SEEDED], "seeded")  # of every shape
    assert not verdict_on(model, graph, some).passed


@pytest.mark.parametrize(
    "wrong", [replace(PREPROCESSING, mean=PREPROCESSING.mean + 1),
              replace(PREPROCESSING, std=PREPROCESSING.std * 1.02),
              replace(PREPROCESSING, channels="BGR")],
    ids=["mean", "deviation", "BGR"],
)  # fmt: skip
def test_a_wrong_export_for_crops_fails(
    wrong: Preprocessing, model: Model, images: ProofImages
) -> None:
    some = ProofImages(images.images[:SEEDED], "seeded")
    draft = openvino_draft(replace(model, preprocessing=wrong))
    verdict = try_draft(model, draft, ".xml", some)
    assert verdict.runtime.startswith("openvino")
    assert not verdict.passed


def test_classes_in_another_order_fail(model: Model, images: ProofImages) -> None:
    renamed = replace(model, classes=("bee", "ant", "cat", "dog"))
    verdict = prove(model, renamed, images, EXACT)
    assert verdict.difference < 1e-6
    assert not verdict.same_classes
    assert not verdict.passed
    assert "classes named differently" in str(verdict)


def test_a_failed_export_writes_nothing(model: Model, images: ProofImages, tmp_path: Path) -> None:
    graph = image_classifier(model)
    set_constant(graph, "prepare.mean", np.zeros_like)
    draft = Draft(lambda facts: {".onnx": onnx_bytes(graph, facts)}, "images", RESIZED)
    verdict = try_draft(model, draft, ".onnx", images)
    with pytest.raises(RuntimeError, match=r"was not written, because its answers .*\|dp\|"):
        write_draft(model, draft, tmp_path / "model.onnx", verdict)
    assert not list(tmp_path.iterdir())


def test_nets_that_are_sure_of_everything_are_proved_by_logarithms(images: ProofImages) -> None:
    net = perturbed(CONFIG)
    torch.nn.init.zeros_(net.fc.weight[1:])
    with torch.no_grad():
        net.fc.bias[0] += 40
    sure = Model(net, ("ant", "bee", "cat", "dog"), PREPROCESSING, {}, [])
    graph = image_classifier(sure)
    assert verdict_on(sure, graph, images).passed
    set_constant(graph, "prepare.mean", lambda mean: mean + 20)
    verdict = verdict_on(sure, graph, images)
    assert verdict.difference < 1e-6
    assert not verdict.passed
    assert "logarithms of probabilities differ by" in str(verdict)


def test_a_model_in_bf16_is_proved_in_fp32(model: Model, images: ProofImages) -> None:
    rounded = replace(model, net=deepcopy(model.net).to(torch.bfloat16))
    assert verdict_on(rounded, image_classifier(rounded), images).passed
    assert rounded.dtype == torch.bfloat16


def test_nan_fails(model: Model, images: ProofImages) -> None:
    graph = image_classifier(model)
    set_constant(graph, "fc.bias", lambda bias: bias * np.float32("nan"))
    assert not verdict_on(model, graph, images).passed


def test_only_ties_may_change_names() -> None:
    expected = torch.tensor([[0.5, 0.4999, 0.0001], [0.9, 0.1, 0.0]])
    swapped = expected[:, [1, 0, 2]]
    assert same_names(expected, swapped, 2e-3) == 1
    assert same_names(expected, swapped, 0) == 0
    assert same_names(expected, expected, 0) == 2


def test_real_images_are_joined_by_seeded_ones(model: Model) -> None:
    grey = [np.full((20, 20, 3), level, np.uint8) for level in range(20)]
    proof = proof_images(model, grey[:5], "test")
    assert (len(proof.images), proof.source) == (LEAST, "5 from test, 7 seeded")
    proof = proof_images(model, grey, "test")
    assert len(proof.images) == 20 + SEEDED
    assert len({image.shape for image in proof.images}) >= 3


def test_of_several_files_all_are_written_or_none(tmp_path: Path) -> None:
    """The second file has the name of a folder."""
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="b"):
        write_all({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
