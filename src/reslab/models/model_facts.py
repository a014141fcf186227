"""Check a model file's facts against its tensors, before any network is built."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from reslab.models.layers import Net
from reslab.models.preprocessing import MEAN_NAME, OPTIONAL, STD_NAME, Preprocessing

Config = TypeVar("Config", bound=BaseModel)

SHOWN = 3  # tensors named in a message
LONGEST_TEXT = 60  # characters of a value quoted in a message
LARGEST_SIDE = 100_000  # pixels
LARGEST_LEVEL = 1e6  # of the mean and the standard deviation of pixels, which go to 255
WEIGHT_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def misfit(file: Path, reason: str) -> ValueError:
    """Return the ValueError for a file that contradicts itself."""
    return ValueError(f"{file} does not fit its own configuration: {reason}")


def quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def names_in(facts: Mapping[str, Any], outputs: int | None, file: Path) -> tuple[list[str], ...]:
    """Return the classes and ids in a model file's facts.

    Raise ValueError unless both are lists of strings, one for each of the network's `outputs`, and
    the ids are all different. If there are no ids, the classes must be different. If `outputs` is
    None, any number of classes is allowed.
    """
    for key in ("classes", "ids"):
        names = facts[key]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise misfit(file, f"{key} is {quoted(names)}, but must be a list of names")
        outputs = len(names) if outputs is None else outputs
        if len(names) != outputs and (names or key == "classes"):
            raise misfit(file, f"{len(names)} {key}, but the network has {outputs} outputs")
    key = "ids" if facts["ids"] else "classes"
    if (repeated := first_repeated(facts[key])) is not None:
        raise misfit(file, f"{key} has {quoted(repeated)} twice, but all must be different")
    return facts["classes"], facts["ids"]


def first_repeated(names: list[str]) -> str | None:
    """Return the first name that repeats an earlier one, or None if all are different."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def must_have_types(facts: Mapping[str, Any], types: Mapping[str, type], file: Path) -> None:
    """Raise ValueError unless each fact named in `types` has its type."""
    for key, wanted in types.items():
        if not isinstance(facts[key], wanted):
            text = quoted(facts[key])
            raise misfit(file, f"{key} is {text}, but must be a {wanted.__name__}")
    if not all(isinstance(report, dict) for report in facts["metrics"]):
        raise misfit(file, f"metrics is {quoted(facts['metrics'])}, but must be a list of reports")


def config_in(kind: type[Config], fields: Any, file: Path, *section: str) -> Config:
    """Return the configuration in a model file; raise ValueError at its first invalid field.

    `section` is the place of `fields` in the file, for the message.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (*section, *first["loc"])))
        said = f"{place} is {quoted(first['input'])}: " if place else ""
        raise misfit(file, said + first["msg"].removeprefix("Value error, ")) from None


def preprocessing_in(tensors: dict[str, Tensor], facts: Any, file: Path) -> Preprocessing:
    """Return the preprocessing in a file, and remove its tensors from `tensors`.

    Raise ValueError unless its numbers and shapes can be used.
    """
    if not isinstance(facts, dict) or facts.keys() - OPTIONAL != {"channels", "resize", "size"}:
        raise misfit(
            file,
            f"preprocessing is {quoted(facts)}, but must have just the keys channels, resize, size",
        )
    if facts["channels"] not in ("RGB", "BGR"):
        raise misfit(file, f"channels is {quoted(facts['channels'])}, but must be 'RGB' or 'BGR'")
    if facts.get("interpolation", "bilinear") not in ("bilinear", "bicubic"):
        text = quoted(facts["interpolation"])
        raise misfit(file, f"interpolation is {text}, but must be 'bilinear' or 'bicubic'")
    if not isinstance(facts.get("as_stored", False), bool):
        raise misfit(file, f"as_stored is {quoted(facts['as_stored'])}, but must be true or false")
    for key in ("resize", "size"):
        side = facts[key]
        if side is not None and not (type(side) is int and 0 < side <= LARGEST_SIDE):
            raise misfit(
                file, f"{key} is {quoted(side)}, but must be null or 1 to {LARGEST_SIDE} pixels"
            )
    mean, std = (tensors.pop(name) for name in (MEAN_NAME, STD_NAME))
    if mean.ndim != 3 or len(mean) != 3 or not mean.numel() or std.shape != (3, 1, 1):
        shapes = f"{list(mean.shape)} and {list(std.shape)}"
        raise misfit(file, f"mean and std are {shapes}, not [3, H, W] and [3, 1, 1]")
    for name, values in ((MEAN_NAME, mean), (STD_NAME, std)):
        if values.dtype not in WEIGHT_TYPES or not (values.abs() < LARGEST_LEVEL).all():
            raise misfit(file, f"{name} holds values that are not floats, or too large for pixels")
    if not (std > 0).all():
        raise misfit(file, f"the standard deviation is {std.flatten().tolist()}, not above 0")
    return Preprocessing(mean, std, **facts)


def build_without_weights(
    blocks: int, build: Callable[[], Net], tensors: Mapping[str, Tensor], file: Path
) -> Net:
    """Build a file's network of `blocks` blocks without memory for its weights.

    `tensors` are to become its weights. Raise ValueError, and build nothing, if they are too few
    for so many blocks.
    """
    if blocks > len(tensors):
        raise misfit(file, f"blocks are {blocks:,} together, the file has {len(tensors)} tensors")
    with torch.device("meta"):
        return build()


def must_match(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], file: Path) -> None:
    """Raise ValueError unless `tensors` have the names, shapes and number types of `wanted`."""
    missing = [name for name in wanted if name not in tensors]
    foreign = [name for name in tensors if name not in wanted]
    for what, names in (("the tensors lack", missing), ("no layer has the tensors", foreign)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise misfit(file, f"{what} {', '.join(map(quoted, names[:SHOWN]))}{more}")
    as_built = all(tensors[name].dtype == expected.dtype for name, expected in wanted.items())
    # in a network in bf16, the norms may be fp32
    main_type = next((t.dtype for t in tensors.values() if t.ndim > 1), torch.float32)
    for name, expected in wanted.items():
        tensor = tensors[name]
        if tensor.shape != expected.shape:
            shapes = f"{list(tensor.shape)}, but the network has {list(expected.shape)}"
            raise misfit(file, f"{name} has the shape {shapes}")
        floats = expected.is_floating_point() and tensor.dtype in WEIGHT_TYPES
        one_type = tensor.dtype == main_type or (tensor.ndim < 2 and tensor.dtype == torch.float32)
        if floats and not (one_type or as_built):
            raise misfit(file, f"{name} holds {tensor.dtype}, but other weights {main_type}")
        if not floats and tensor.dtype != expected.dtype:
            kinds = f"{tensor.dtype}, but the network has {expected.dtype}"
            raise misfit(file, f"{name} holds {kinds}")


def must_be_finite(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Raise RuntimeError, naming the file and the tensor, if any weight is infinite or NaN."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise RuntimeError(
                f"{file}: {name} is infinite or NaN, so the weights are unusable; "
                "if training diverged, train again with a lower learning rate"
            )
