"""Named tensors from files that other programs wrote; nothing of them is ever run."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from shlex import quote
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

TORCH_SUFFIXES = (".pth", ".pt", ".th")
WEIGHT_SUFFIXES = (".safetensors", *TORCH_SUFFIXES, ".npz")
PACKED = {".xz": "xz -dk", ".gz": "gzip -dk", ".bz2": "bzip2 -dk", ".zst": "zstd -dk"}

# what training scripts put around a state dict, and what wrappers put before its names
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.", "model.")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The weights of a file under their names, without wrappers and prefixes; floats in fp32.

    A pickle is opened with torch's `weights_only` alone: one that needs more could run code.
    """
    if not file.is_file():
        raise ValueError(f"no file {file}")
    if file.suffix in PACKED:
        raise ValueError(f"{file} is compressed: first `{PACKED[file.suffix]} {quote(str(file))}`")
    if file.suffix not in WEIGHT_SUFFIXES:
        raise ValueError(f"{file}: weights are read from {', '.join(WEIGHT_SUFFIXES)}")
    if file.suffix == ".safetensors":
        found = read_safetensors(file)
    elif file.suffix == ".npz":
        found = read_npz(file)
    else:
        found = unwrapped(read_pickle(file), file)
    return without_prefixes({name: checked(tensor, name, file) for name, tensor in found.items()})


def read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, "pt") as opened:
            if "reslab" in (opened.metadata() or {}):
                raise ValueError(f"{file} is a model file of reslab already: use it as it is")
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise damaged(file, error) from None


def read_npz(file: Path) -> dict[str, Tensor]:
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # one array instead of an archive, or a mutated one of any kind
        raise damaged(file, error) from None


def read_pickle(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says it again
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|global|class) ([\w.]+\.\w+)", str(error))
        if wanted:
            raise ValueError(
                f"{file} needs {wanted[1]} to be opened, which could run code, and is refused; "
                "save the state dict alone where you trust the file"
            ) from None
        raise ValueError(f"{file} is no weights file of torch, or a damaged one") from None
    except Exception as error:  # a mutated archive fails in any of torch's parts
        raise damaged(file, error) from None


def damaged(file: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return ValueError(f"{file} is no {file.suffix} of weights, or a damaged one ({reason})")


def unwrapped(found: Any, file: Path) -> dict[str, Any]:
    """The state dict in what a training script saved."""
    while isinstance(found, Mapping):
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            return {str(name): value for name, value in found.items()}
        found = inner
    raise ValueError(f"{file} holds a {type(found).__name__} instead of named tensors")


def without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names as the network's own code gave them."""
    prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
    if prefix is None or not tensors:
        return tensors
    return without_prefixes({name.removeprefix(prefix): t for name, t in tensors.items()})


def checked(tensor: Any, name: str, file: Path) -> Tensor:
    """A dense tensor of finite fp32 numbers in memory of its own; counts stay whole numbers."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{file}: {name!r} is a {type(tensor).__name__}, not a tensor")
    if name.endswith("num_batches_tracked"):
        return tensor.detach().long().clone()
    if tensor.layout != torch.strided or not tensor.is_floating_point():
        raise ValueError(f"{file}: {name!r} holds {tensor.dtype} numbers; floats are wanted")
    plain = tensor.detach().float().clone()
    if not plain.isfinite().all():
        raise ValueError(f"{file}: {name!r} holds values that are not numbers")
    return plain


def read_mean(file: Path) -> Tensor:
    """A mean image or colour from an .npy, or an .npz of one array: [3, H, W] or [3, 1, 1]."""
    if file.suffix not in (".npy", ".npz"):
        raise ValueError(f"{file}: a mean is read from .npy or .npz")
    if not file.is_file():
        raise ValueError(f"no file {file}")
    try:
        with open(file, "rb") as opened:
            found = np.load(opened, allow_pickle=False)
            array = found if isinstance(found, np.ndarray) else found[found.files[0]]
            mean = torch.from_numpy(array).float()
    except Exception as error:
        raise damaged(file, error) from None
    return mean_shaped(mean, str(file))


def mean_shaped(mean: Tensor, place: str) -> Tensor:
    """[3], [1, 3, H, W] or [3, H, W] -> [3, H, W]."""
    shaped = mean.squeeze(0) if mean.ndim == 4 and len(mean) == 1 else mean
    shaped = shaped[:, None, None] if shaped.ndim == 1 else shaped
    if shaped.ndim != 3 or len(shaped) != 3:
        raise ValueError(f"{place}: a mean of {list(mean.shape)}; wanted [3, H, W] or [3]")
    if not shaped.isfinite().all() or shaped.min() < 0 or not 1 < shaped.max() <= 255:
        raise ValueError(f"{place}: a mean from {shaped.min():g} to {shaped.max():g}, not of 0-255")
    return shaped.contiguous()
