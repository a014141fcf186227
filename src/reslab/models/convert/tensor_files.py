"""Read named tensors from other programs' files, without ever running code from them."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from shlex import quote
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reslab.models.convert.wrapping import (
    Weights,
    named_tensors,
    network_prefix,
    plain_facts,
    without_network,
)
from reslab.runtime.files import TensorFile

TORCH_SUFFIXES = (".pth", ".pt", ".th")
WEIGHT_SUFFIXES = (".safetensors", *TORCH_SUFFIXES, ".npz")
PACKED = {".xz": "xz -dk", ".gz": "gzip -dk", ".bz2": "bzip2 -dk", ".zst": "zstd -dk"}


def read_tensors(file: Path) -> Weights:
    """Return the weights of the network in a file, without wrappers and prefixes, as fp32.

    If the names match no layout, the weights have their full names. Pickles are opened with
    `weights_only=True` only: anything more could run code.
    """
    if not file.is_file():
        raise ValueError(f"no file {file}")
    if file.suffix in PACKED:
        raise ValueError(f"{file} is compressed: first `{PACKED[file.suffix]} {quote(str(file))}`")
    if file.suffix not in WEIGHT_SUFFIXES:
        raise ValueError(f"{file}: weights are read from {', '.join(WEIGHT_SUFFIXES)}")
    if file.suffix == ".safetensors":
        content = read_safetensors(file)
    elif file.suffix == ".npz":
        content = read_npz(file)
    else:
        content = read_pickle(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} holds a {type(content).__name__} instead of named tensors")
    tensors = named_tensors(content, file)
    prefix = network_prefix(tensors, file)
    names = [name for name in tensors if name.startswith(prefix)]
    return Weights(
        tensors={name.removeprefix(prefix): to_fp32(tensors[name], name, file) for name in names},
        facts=plain_facts(content),
        left_out=without_network(tensors, prefix),
        prefix=prefix,
        beside={name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)},
    )


def read_safetensors(file: Path) -> dict[str, Any]:
    try:
        content = TensorFile.read(file)
    except (ValueError, OSError) as error:
        raise damaged(file, error) from None
    if "reslab" in content.facts:
        raise ValueError(f"{file} is already a reslab model file: use it as it is")
    return content.facts | content.tensors


def read_npz(file: Path) -> dict[str, Tensor]:
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # one array instead of an archive, or any kind of damage
        raise damaged(file, error) from None


def read_pickle(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says the same
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        refused = re.search(r"(?:GLOBAL|global|class) ([\w.]+\.\w+)", str(error))
        if refused:
            raise ValueError(
                f"{file} is refused: opening it needs {refused[1]}, which could run code; on a "
                "machine where you trust the file, save its state dict alone"
            ) from None
        raise ValueError(f"{file} is not a weights file of torch, or is damaged") from None
    except Exception as error:  # a damaged archive can fail anywhere in torch
        raise damaged(file, error) from None


def damaged(file: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return ValueError(f"{file} is not a {file.suffix} file of weights, or is damaged ({reason})")


def to_fp32(tensor: Tensor, name: str, file: Path) -> Tensor:
    """Copy a tensor to fp32, except batch counts; ValueError unless dense and finite."""
    if name.endswith("num_batches_tracked"):
        return tensor.detach().long().clone()
    if tensor.layout != torch.strided or not tensor.is_floating_point():
        raise ValueError(
            f"{file}: {name!r} holds {tensor.dtype} numbers, but weights are dense floats"
        )
    numbers = tensor.detach().float().clone()
    if not numbers.isfinite().all():
        raise ValueError(f"{file}: {name!r} holds values that are not finite")
    return numbers


def read_mean(file: Path) -> Tensor:
    """Read a mean image [3, H, W] or colour [3, 1, 1] from .npy, or the first array in .npz."""
    if file.suffix not in (".npy", ".npz"):
        raise ValueError(f"{file}: a mean is read from .npy or .npz")
    if not file.is_file():
        raise ValueError(f"no file {file}")
    try:
        with open(file, "rb") as opened:
            content = np.load(opened, allow_pickle=False)
            array = content if isinstance(content, np.ndarray) else content[content.files[0]]
            mean = torch.from_numpy(array).float()
    except Exception as error:
        raise damaged(file, error) from None
    return mean_shaped(mean, str(file))


def mean_shaped(mean: Tensor, source: str) -> Tensor:
    """Reshape [3], [1, 3, H, W] or [3, H, W] to [3, H, W]; errors name `source`."""
    shaped = mean.squeeze(0) if mean.ndim == 4 and len(mean) == 1 else mean
    shaped = shaped[:, None, None] if shaped.ndim == 1 else shaped
    if shaped.ndim != 3 or len(shaped) != 3:
        raise ValueError(
            f"{source}: the mean has the shape {list(mean.shape)}, not [3, H, W] or [3]"
        )
    low, high = shaped.min(), shaped.max()
    if not shaped.isfinite().all() or low < 0 or not 1 < high <= 255:
        raise ValueError(
            f"{source}: the mean goes from {low:g} to {high:g}: it must be for pixels from 0 to 255"
        )
    return shaped.contiguous()
