"""Read named tensors from other programs' files, without ever running code from them."""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from reslab.errors import os_reason
from reslab.models.convert.caffe_files import (
    is_caffe_model,
    read_caffe_blob,
    read_caffe_model,
)
from reslab.models.convert.other_files import what_it_is
from reslab.models.convert.stored import BATCH_COUNT, NotWeights, Stored, from_array
from reslab.models.convert.torch_files import read_archive, read_pickle
from reslab.models.convert.wrapping import Content, Weights, network_prefix, without_network
from reslab.runtime.files import TensorFile, open_regular

HEAD_BYTES = 4096  # in which a file's kind is recognised
MOST_BYTES = 2**32  # in a file
MOST_UNPACKED = 2**30  # bytes in an archive that is smaller than what it holds
MOST_WEIGHTS = 2**28  # in a network: those of the family have less than a quarter of them
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
}  # fmt: skip
MOST_HEADER = 10**8  # bytes in a safetensors file


def read_tensors(file: Path) -> Weights:
    """Return the weights of the network in a file, without wrappers and prefixes, as fp32.

    The content decides how a file is read, not its name. If the names match no layout, the weights
    have their full names. Raise ValueError, with what to do instead, if the file has no weights.
    """
    with open_file(file) as opened:
        head = opened.read(HEAD_BYTES)
        opened.seek(0)
        try:
            found = weights_in(read_content(file, opened, head))
        except NotWeights as error:
            raise ValueError(f"{file} {error}") from None
        except Exception as error:  # libraries that read damaged files can fail anywhere
            raise damaged(file, error) from None
    tensors = {
        name: to_fp32(tensor, f"{found.prefix}{name}", file)
        for name, tensor in found.tensors.items()
    }
    return replace(found, tensors=tensors)


def open_file(file: Path) -> BinaryIO:
    try:
        return open_regular(file, MOST_BYTES)
    except FileNotFoundError:
        raise ValueError(f"no file {file}") from None
    except IsADirectoryError:
        raise ValueError(f"{file} is a folder: name the file of weights in it") from None
    except OSError as error:
        raise ValueError(f"{file}: {os_reason(error)}") from None


def read_content(file: Path, opened: BinaryIO, head: bytes) -> Any:
    """Return the nested object in a file, with tensors that are read when they are needed."""
    if head.startswith(b"PK\3\4"):
        return read_zip(file, opened)
    if head[:1] == b"\x80" and head[1:2] <= b"\5":
        return read_pickle(opened)
    if is_caffe_model(head):
        return read_caffe_model(opened.read())
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MOST_HEADER:
        return read_safetensors(file)
    raise NotWeights(what_it_is(file, head))


def read_zip(file: Path, opened: BinaryIO) -> Any:
    archive = zipfile.ZipFile(opened)
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    if sum(sizes.values()) > max(MOST_UNPACKED, opened.seek(0, 2)):
        raise NotWeights(f"unpacks to {sum(sizes.values()):,} bytes, too many for weights")
    if len(sizes) != len(archive.infolist()):
        raise NotWeights("is an archive in which two files have one name")
    if all(name.endswith(".npy") for name in sizes):
        return {name.removesuffix(".npy"): read_npy(archive, name) for name in sizes}
    pickled = [name for name in sizes if name.rpartition("/")[2] == "data.pkl"]
    if len(pickled) != 1:
        some = ", ".join([*sizes][:3])
        raise NotWeights(f"is a zip archive of {some}, ...: unpack it, and name the file in it")
    root = pickled[0].removesuffix("data.pkl")
    if any(name.startswith(f"{root}code/") for name in sizes):
        raise NotWeights(
            "is a TorchScript program: where you trust it, "
            f"torch.save(torch.jit.load({str(file)!r}).state_dict(), 'weights.pth')"
        )
    if not any(info.CRC for info in archive.infolist()):
        for info in archive.infolist():
            del info.CRC  # torch.serialization.set_crc32_options(False): there is none to verify
    return read_archive(archive, root)


def read_npy(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(name) as opened:
        try:
            return from_array(np.lib.format.read_array(opened, allow_pickle=False))
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise NotWeights(
                    f"is refused: its array {name} holds Python objects, which could run code"
                ) from None
            raise


def read_safetensors(file: Path) -> dict[str, Any]:
    facts = TensorFile.read_facts(file)
    if "reslab" in facts:
        raise NotWeights("is already a reslab model file: use it as it is")
    if facts.keys() >= {"iteration", "schedule"}:
        raise NotWeights("is a checkpoint of a reslab run: `reslab resume` completes the run")
    opened = safe_open(file, "pt")
    content = {}
    for name in opened.keys():  # noqa: SIM118 (it is not a dict)
        part = opened.get_slice(name)
        kind, shape = part.get_dtype(), tuple(part.get_shape())
        read = partial(opened.get_tensor, name)
        if dtype := DTYPES.get(kind):
            content[name] = Stored(dtype, shape, read)
        else:
            content[name] = Stored(torch.float32, shape, read, kind)
    return facts | content


def weights_in(content: Any) -> Weights:
    """Return the weights, as they are stored, of the network in the object that a program saved."""
    if not isinstance(content, Mapping):
        raise NotWeights(f"holds a {type(content).__name__} instead of named tensors")
    found = Content()
    facts = found.facts(content)
    tensors = {name: t for name, t in found.tensors.items() if t.is_weight(name)}
    prefix = network_prefix(tensors)
    network = dict.fromkeys(name for name in found.network(prefix) if name in tensors)
    count = sum(math.prod(tensors[name].shape) for name in network)
    if count > MOST_WEIGHTS:
        raise NotWeights(f"holds {count:,} numbers, too many for a network of this family")
    return Weights(
        tensors={n.removeprefix(prefix): dense(tensors[n], n) for n in network},
        facts=facts,
        left_out=without_network(found.tensors, network),
        prefix=prefix,
        beside={
            name: tensor.read()
            for name, tensor in tensors.items()
            if name not in network and tensor.kind == "dense"
        },
    )


def dense(tensor: Stored, name: str) -> Tensor:
    if tensor.kind != "dense":
        raise NotWeights(f"holds {name!r} as a {tensor.kind} tensor, but weights are dense floats")
    return tensor.read()


def to_fp32(tensor: Tensor, name: str, file: Path) -> Tensor:
    """Copy a tensor to fp32, except batch counts; raise ValueError unless it has finite floats."""
    if name.endswith(BATCH_COUNT):
        return tensor.to(torch.int64, copy=True)
    if tensor.numel() > MOST_WEIGHTS:  # of which fewer may be stored
        raise ValueError(f"{file}: {name!r} holds {tensor.numel():,} numbers")
    if not tensor.is_floating_point():
        raise ValueError(
            f"{file}: {name!r} holds {tensor.dtype} numbers, but weights are dense floats"
        )
    numbers = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not numbers.isfinite().all():
        raise ValueError(f"{file}: {name!r} holds values that are not finite")
    return numbers


def damaged(file: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return ValueError(f"{file} is cut short or damaged: download or copy it again ({reason})")


def read_mean(file: Path) -> Tensor:
    """Read a mean image [3, H, W] or colour [3, 1, 1].

    It is read from .npy, the first array in .npz, or Caffe's .binaryproto.
    """
    if file.suffix not in (".npy", ".npz", ".binaryproto"):
        raise ValueError(f"{file}: a mean is read from .npy, .npz or .binaryproto")
    opened = open_file(file)
    try:
        with opened:
            mean = torch.from_numpy(mean_array(opened, file.suffix)).float()
    except Exception as error:
        raise damaged(file, error) from None
    return mean_shaped(mean, str(file))


def mean_array(opened: BinaryIO, suffix: str) -> np.ndarray:
    if suffix == ".binaryproto":
        return read_caffe_blob(opened.read()).copy()  # torch requires writable memory
    content = np.load(opened, allow_pickle=False)
    return content if isinstance(content, np.ndarray) else content[content.files[0]]


def mean_shaped(mean: Tensor, source: str) -> Tensor:
    """Reshape [3], [1, 3, H, W] or [3, H, W] to [3, H, W]; errors name `source`."""
    shaped = mean.squeeze(0) if mean.ndim == 4 and len(mean) == 1 else mean
    shaped = shaped[:, None, None] if shaped.ndim == 1 else shaped
    if shaped.ndim != 3 or len(shaped) != 3 or not shaped.numel():
        raise ValueError(
            f"{source}: the mean has the shape {list(mean.shape)}, not [3, H, W] or [3]"
        )
    low, high = shaped.min(), shaped.max()
    if not shaped.isfinite().all() or low < 0 or not 1 < high <= 255:
        raise ValueError(
            f"{source}: the mean goes from {low:g} to {high:g}: it must be for pixels from 0 to 255"
        )
    return shaped.contiguous()
