"""Caffe models are written by Google's own protocol buffers, and read without them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tests.models.convert.states import State, save_npz

from reslab.models.convert.caffe_files import is_caffe_model
from reslab.models.convert.importer import import_model
from reslab.models.convert.tensor_files import read_mean, read_tensors

# name, type, number and label of each field, as in caffe.proto; fields that do not matter are left
INT, FLOAT, TEXT, MESSAGE = 3, 2, 9, 11
ONE, MANY = 1, 3
SCHEMA: dict[str, list[tuple[str, int, int, int, str]]] = {
    "BlobShape": [("dim", INT, 1, MANY, "packed")],
    "BlobProto": [
        ("num", INT, 1, ONE, ""), ("channels", INT, 2, ONE, ""), ("height", INT, 3, ONE, ""),
        ("width", INT, 4, ONE, ""), ("data", FLOAT, 5, MANY, "packed"),
        ("diff", FLOAT, 6, MANY, "packed"), ("shape", MESSAGE, 7, ONE, "BlobShape"),
    ],
    "LayerParameter": [
        ("name", TEXT, 1, ONE, ""), ("type", TEXT, 2, ONE, ""), ("bottom", TEXT, 3, MANY, ""),
        ("loss_weight", FLOAT, 5, MANY, ""), ("blobs", MESSAGE, 7, MANY, "BlobProto"),
        ("phase", INT, 10, ONE, ""),
    ],
    "NetParameter": [
        ("name", TEXT, 1, ONE, ""), ("input", TEXT, 3, MANY, ""), ("input_dim", INT, 4, MANY, ""),
        ("layer", MESSAGE, 100, MANY, "LayerParameter"),
    ],
}  # fmt: skip


def message_types() -> dict[str, Any]:
    """Return the classes of Caffe's messages."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, kind, number, label, detail in fields:
            added = message.field.add(name=field, type=kind, number=number, label=label)
            if detail == "packed":
                added.options.packed = True
            elif detail:
                added.type_name = f".caffe.{detail}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"caffe.{name}")) for name in SCHEMA}


CAFFE = message_types()


def net_of(blobs: dict[str, torch.Tensor]) -> Any:
    """Return a NetParameter with blobs named `layer/number`, and layers without any."""
    net = CAFFE["NetParameter"](name="ResNet-50", input=["data"], input_dim=[1, 3, 224, 224])
    net.layer.add(name="data", type="Input", phase=1)
    layers: dict[str, Any] = {}
    for name, tensor in sorted(blobs.items()):
        layer = name.partition("/")[0]
        if layer not in layers:
            layers[layer] = net.layer.add(name=layer, type="Some", bottom=["x"], loss_weight=[0.5])
        added = layers[layer].blobs.add()
        added.shape.dim.extend(tensor.shape)
        added.data.extend(tensor.flatten().tolist())
        added.diff.extend([0.0])
    return net


def test_blobs_have_their_names_shapes_and_values(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    blobs = {
        "conv1/0": torch.randn(4, 3, 7, 7, generator=generator),
        "bn_conv1/0": torch.randn(4, generator=generator),
        "bn_conv1/1": torch.randn(4, generator=generator),
        "bn_conv1/2": torch.randn(1, generator=generator),
        "res2a_branch2a/0": torch.randn(4, 4, 1, 1, generator=generator),
    }
    content = net_of(blobs).SerializeToString()
    (tmp_path / "net.bin").write_bytes(content)  # the name does not matter
    tensors = read_tensors(tmp_path / "net.bin").tensors
    assert tensors.keys() == blobs.keys()
    assert all(torch.equal(tensors[name], blobs[name]) for name in blobs)
    assert is_caffe_model(content[:4096])


@pytest.mark.slow
def test_a_released_file_is_the_network(tmp_path: Path, authors_50: State) -> None:
    (tmp_path / "ResNet-50-model.caffemodel").write_bytes(net_of(authors_50).SerializeToString())
    save_npz(authors_50, tmp_path / "w.npz")
    ours = import_model(tmp_path / "ResNet-50-model.caffemodel").model.net.state_dict()
    known = import_model(tmp_path / "w.npz").model.net.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in known.items())


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    content = net_of({"conv1/0": torch.zeros(2, 3), "fc/0": torch.ones(5, 7)}).SerializeToString()
    for length in range(45, len(content), 7):
        (tmp_path / "net.caffemodel").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"net\.caffemodel"):
            import_model(tmp_path / "net.caffemodel")


def test_a_blob_with_missing_numbers_is_refused(tmp_path: Path) -> None:
    net = net_of({"conv1/0": torch.zeros(2, 3)})
    del net.layer[1].blobs[0].data[-1]
    (tmp_path / "net.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(ValueError, match=r"a blob of shape \[2, 3\] has 20 bytes"):
        read_tensors(tmp_path / "net.caffemodel")


def test_a_mean_image_in_the_older_form(tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(90, 130, (3, 5, 6)).astype("f4")
    blob = CAFFE["BlobProto"](num=1, channels=3, height=5, width=6, data=image.flatten().tolist())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    assert np.array_equal(read_mean(tmp_path / "mean.binaryproto").numpy(), image)


HEADS = [b"", b"\x08\x03\x12\x07torch", b"\n\n<html>", b"PK\3\4", b"\n\1"]


@pytest.mark.parametrize("head", HEADS)
def test_other_files_are_no_caffe_models(head: bytes) -> None:
    assert not is_caffe_model(head)
