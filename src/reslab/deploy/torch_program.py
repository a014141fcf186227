"""A classifier as an exported torch program, .pt2: decoded images -> probabilities."""

from __future__ import annotations

import copy
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.data.resize import FILTERS, Interpolation
from reslab.deploy.prepare import centre_of
from reslab.deploy.pt2 import (
    EXTRA,
    archive_bytes,
    read_archive,
    split_archive,
    without_traces,
)
from reslab.deploy.resize import PILLOW_MAY_BEGIN_VERTICALLY
from reslab.deploy.runtimes import Runtime, named, unusable
from reslab.evaluation.fuse import is_of_blocks
from reslab.models.batchnorm import fold_in_fp32
from reslab.models.model_file import Model
from reslab.models.resnet import ResNet
from reslab.runtime.json_text import parse_json

METADATA = f"{EXTRA}reslab.json"  # the record with the metadata
PRECISION_BITS = 22  # of Pillow's coefficients, which are integers
EXAMPLE_IMAGES = 2


class ImageClassifier(nn.Module):
    """A model with its preprocessing, as `reslab predict` applies both.

    Decoded RGB images, uint8 [B, H, W, 3] -> probabilities, float32 [B, classes]
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: Model, *, exact: bool) -> None:
        super().__init__()
        preprocessing = model.preprocessing
        self.centre = centre_of(model)
        self.exact, self.interpolation = exact, preprocessing.interpolation
        self.bgr = preprocessing.channels == "BGR"
        mean = preprocessing.mean
        if self.centre is None or mean.shape[-1] != self.centre[1]:  # as `Preprocessing` does
            mean = mean.mean((1, 2), keepdim=True)
        self.register_buffer("mean", mean.clone())
        self.register_buffer("deviation", preprocessing.std.clone())
        net = Logits(model.resnet) if is_of_blocks(model) else copy.deepcopy(model.net)
        for weight in net.parameters():  # torch warns when it saves weights that are channels last
            weight.data = weight.data.contiguous()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2)
        if self.centre is not None:
            crop = exact_centre if self.exact else resized_centre
            x = crop(x, *self.centre, self.interpolation)
        x = (x.float() - self.mean) / self.deviation
        if self.bgr:
            x = x.flip(1)
        return self.net(x).float().softmax(1)


class Logits(nn.Module):
    """A ResNet for maps of any size: batch norm folded, a mean in place of pooling with a window.

    [B, 3, H, W] -> [B, classes]
    """

    def __init__(self, net: ResNet) -> None:
        super().__init__()
        net = fold_in_fp32(net)
        self.stem, self.stages, self.fc = net.stem, net.stages, net.fc

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.stages(self.stem(images)).mean((2, 3)))


def scaled_sides(images: Tensor, side: int) -> tuple[int, int]:
    """Return the height and width at which the shorter side is `side`, as `shorter_side` does."""
    height, width = images.shape[-2:]
    shorter = cast(int, torch.sym_min(height, width))
    return side * height // shorter, side * width // shorter


def centre_start(length: int, size: int) -> int:
    """Return where the centre begins, as `centre_offset`, for lengths known only when run."""
    half, odd = (length - size) // 2, (length - size) % 2
    return half + odd * (half % 2)  # halves are rounded to even


def resized_centre(
    images: Tensor, side: int, size: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Resize to a shorter side, and crop the centre; uint8 [B, 3, H, W] -> [B, 3, size, size].

    Pixels differ from Pillow's by at most one level.
    """
    height, width = scaled_sides(images, side)
    x = images
    for sides in (first_sides(images, height, width), (height, width)):
        x = F.interpolate(x, size=sides, mode=interpolation, antialias=True)
    top, left = centre_start(height, size), centre_start(width, size)
    return x.narrow(2, top, size).narrow(3, left, size)


def first_sides(images: Tensor, down: int, across: int) -> tuple[int, int]:
    """Return the height and width after the first of two passes, in Pillow's order.

    Only one side changes: the width, or the height of an image that Pillow shrinks vertically
    first. There is no condition, because sizes are known only when the program runs.
    """
    height, width = images.shape[-2:]
    if not PILLOW_MAY_BEGIN_VERTICALLY:
        return height, across
    is_tall = torch.sym_min((height - 1) // (2 * width), 1)
    vertical = cast(int, is_tall * torch.sym_min(torch.sym_max(height - down, 0), 1))  # 0 or 1
    return height + vertical * (down - height), across + vertical * (width - across)


def exact_centre(
    images: Tensor, side: int, size: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Compute `resized_centre` with exactly Pillow's pixels, which takes several times as long."""
    (height, width), (down, across) = images.shape[-2:], scaled_sides(images, side)
    rows = coefficients(width, across, centre_start(across, size), size, interpolation)
    columns = coefficients(height, down, centre_start(down, size), size, interpolation)
    pixels = images.double()
    x = to_levels(columns @ to_levels(pixels @ rows.T))
    if not PILLOW_MAY_BEGIN_VERTICALLY:
        return x
    sides = torch.stack([torch.scalar_tensor(length) for length in (height, width, down)])
    is_tall = (sides[0] > 2 * sides[1]) & (sides[2] < sides[0])
    # a condition would need an operator that runs either of two programs
    return torch.where(is_tall, to_levels(to_levels(columns @ pixels) @ rows.T), x)


def coefficients(
    length: int, scaled: int, start: int, size: int, interpolation: Interpolation
) -> Tensor:
    """Return Pillow's integer coefficients for `size` pixels, from `start`, of one resized axis.

    float64 [size, length], the filter's weights of the `length` pixels before resizing to `scaled`
    """
    number = torch.float64
    scale = torch.scalar_tensor(length, dtype=number) / torch.scalar_tensor(scaled, dtype=number)
    stretch = scale.clamp(min=1)
    _, reach = FILTERS[interpolation]
    support = reach * stretch
    centre = (torch.arange(size, dtype=number)[:, None] + start + 0.5) * scale
    first, last = (centre - support + 0.5).floor(), (centre + support + 0.5).floor()
    pixel = torch.arange(length, dtype=number)[None]
    distance = ((pixel - centre + 0.5) * (1 / stretch)).abs()
    weights = triangle(distance) if interpolation == "bilinear" else cubic(distance)
    weights = weights * ((pixel >= first) & (pixel < last))
    weights = weights / weights.sum(1, keepdim=True) * 2**PRECISION_BITS
    return weights.sign() * (weights.abs() + 0.5).floor()


def triangle(distance: Tensor) -> Tensor:
    """Return the bilinear filter's weights of pixels at a distance from the centre."""
    return (1 - distance).clamp(min=0)


def cubic(distance: Tensor) -> Tensor:
    """Return the weights of Pillow's bicubic filter, Keys' with a = -0.5."""
    x, a = distance, -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def to_levels(sums: Tensor) -> Tensor:
    """Round weighted sums of pixels to levels, 0 to 255, as Pillow does after each axis."""
    return ((sums + 2 ** (PRECISION_BITS - 1)) / 2**PRECISION_BITS).floor().clamp(0, 255)


def export_program(model: Model, *, exact: bool = False) -> torch.export.ExportedProgram:
    """Trace a model with its preprocessing; the number of images and their size are dynamic.

    Raise ValueError if torch cannot trace a network of the user's own.
    """
    program = ImageClassifier(model, exact=exact).eval()
    sides = example_sides(model)
    example = torch.zeros(EXAMPLE_IMAGES, *sides, 3, dtype=torch.uint8)
    dynamic = torch.export.Dim.DYNAMIC
    try:
        with torch.no_grad():
            return torch.export.export(
                program, (example,), dynamic_shapes=({0: dynamic, 1: dynamic, 2: dynamic},)
            )
    except Exception as error:
        if is_of_blocks(model):
            raise
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"torch.export cannot trace {model.own_net} for any number of images: {reason}"
        ) from None


def example_sides(model: Model) -> tuple[int, int]:
    """Return the size of the images with which a model is traced; no side may be special to it."""
    centre = centre_of(model)
    stages = len(model.config.blocks) if is_of_blocks(model) else 4
    side = 2 ** (stages + 3) if centre is None else centre[0]
    return side + 8, side + 16


def program_bytes(program: torch.export.ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Return the content of a .pt2 file; the metadata is a record of its own."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    records = without_traces(split_archive(buffer.getvalue()))
    return with_metadata(archive_bytes(records), metadata)


def with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return a .pt2 file's content with other metadata; all that computes stays the same."""
    records = split_archive(content)
    return archive_bytes(records | {METADATA: json.dumps(dict(metadata)).encode()})


class TorchProgram:
    """An exported program in torch, given as a .pt2 file or as its content.

    Raise ValueError if the file is damaged, is not an exported program, or could run code when it
    is loaded.
    """

    def __init__(self, source: Path | bytes) -> None:
        records = read_archive(source)
        self.name, self.title = named(source), f"torch.export {torch.__version__}"
        self.facts = records.get(METADATA, b"{}")
        log = logging.getLogger("torch.export")
        was_disabled, log.disabled = log.disabled, True  # it would print the stack of an error
        try:
            # not the file itself, which torch's reader of archives could understand differently
            program = torch.export.load(io.BytesIO(archive_bytes(records)))
            self.program = program.module()
        except Exception:  # of any type, with a message about torch's own code
            raise ValueError(f"{self.name} is damaged or not an exported model") from None
        finally:
            log.disabled = was_disabled

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        try:
            return self.program(torch.from_numpy(images)).numpy()
        except Exception as error:
            raise unusable(self.name, images, error) from None

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the file; empty if they are not texts."""
        try:
            facts = parse_json(self.facts)
        except ValueError:
            return {}
        items = facts.items() if isinstance(facts, dict) else ()
        return {key: text for key, text in items if isinstance(text, str)}

    def in_bf16(self) -> Runtime:
        raise ValueError(
            "an exported program computes in fp32: for bf16, use the model that it was made from"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
