"""The trunk of a 6n+2 net (Sec. 4.2) in C++: everything before its classifier, for training."""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from reslab.kernels.build import Kernels

WIDTHS = (16, 32, 64)  # of the stages
SMALLEST_SIDE, SIDE_STEP = 12, 4  # of images, in pixels
POINTER = ctypes.c_void_p
Shortcut = Literal["none", "unweighted", "projection"]
SHORTCUTS: tuple[Shortcut, ...] = (
    "none",
    "unweighted",
    "projection",
)  # in the order of the kernels


@dataclass(frozen=True)
class ConvNorm:
    """The tensors of a convolution, channels-last [out, in, k, k], and of its batch norm, [out]."""

    weight: Tensor
    gamma: Tensor
    beta: Tensor
    running_mean: Tensor
    running_variance: Tensor

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.gamma, self.beta

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return *self.weights, self.running_mean, self.running_variance


@dataclass(frozen=True)
class TrunkLayer:
    """One 3x3 convolution of the main path, and the shortcut that is added to its output.

    A shortcut begins two layers earlier. "unweighted" is the identity, or option A.
    """

    conv: ConvNorm
    stride: int = 1
    shortcut: Shortcut = "none"
    projection: ConvNorm | None = None

    def __post_init__(self) -> None:
        assert (self.projection is not None) == (self.shortcut == "projection")


class Trunk:
    """The layers of a trunk, with memory for their activations.

    The layers' tensors may be changed in place, but not replaced. After a change, `pack` must be
    called before the next forward pass.

    Every forward pass replaces the activations, so a backward pass must belong to the last forward
    pass. The bits of a pass do not depend on the number of threads.
    """

    def __init__(
        self, kernels: Kernels, layers: Sequence[TrunkLayer], side: int, batch: int
    ) -> None:
        """Allocate memory for images [batch, 3, side, side]."""
        assert side >= SMALLEST_SIDE
        assert side % SIDE_STEP == 0
        self.side, self.batch, self.passes = side, batch, 0
        self.convs = [
            conv for layer in layers for conv in (layer.conv, layer.projection) if conv is not None
        ]
        for conv in self.convs:
            assert conv.weight.is_contiguous(memory_format=torch.channels_last)
            assert all(tensor.dtype == torch.float32 for tensor in conv.tensors)
        self.weights = [weight for conv in self.convs for weight in conv.weights]
        self.gradients = [torch.empty_like(weight) for weight in self.weights]
        self.addresses = pointers([tensor for conv in self.convs for tensor in conv.tensors])
        self.gradient_addresses = pointers(self.gradients)
        described = [
            number
            for layer in layers
            for number in (len(layer.conv.gamma), layer.stride, SHORTCUTS.index(layer.shortcut))
        ]
        self.library = kernels.library
        create = self.library.trunk_create
        create.restype = POINTER
        handle = create(
            side, batch, torch.get_num_threads(), len(layers),
            (ctypes.c_int * len(described))(*described),
        )  # fmt: skip
        if not handle:
            raise MemoryError(f"the activations of {batch} images do not fit in memory")
        self.handle = POINTER(handle)
        weakref.finalize(self, self.library.trunk_destroy, self.handle)
        self.pack()

    def pack(self) -> None:
        """Copy the weights of the convolutions into the layout that the passes read."""
        self.library.trunk_pack(self.handle, self.addresses)

    def features(self, images: Tensor, momentum: float, epsilon: float) -> Tensor:
        """Return the pooled features, [B, 3, S, S] -> [B, 64].

        Batch norm uses the statistics of these images, and moves its running ones by `momentum`.
        `backward` of a loss adds to the `grad` of the layers' weights; `torch.autograd.grad` does
        not see them.
        """
        assert images.dtype == torch.float32
        assert images.shape[1:] == (3, self.side, self.side)
        assert len(images) <= self.batch
        images = images.contiguous(memory_format=torch.channels_last)
        return TrunkFunction.apply(self, images, momentum, epsilon, self.weights[0])


class TrunkFunction(torch.autograd.Function):
    """The passes through a `Trunk`.

    The backward pass itself adds to the `grad` of the weights: through autograd, this would take a
    twentieth of the pass's time. One of the weights is an argument, so that autograd calls
    the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, trunk: Trunk, images: Tensor, momentum: float, epsilon: float, weight: Tensor
    ) -> Tensor:
        features = images.new_empty(len(images), WIDTHS[-1])
        trunk.library.trunk_forward(
            trunk.handle, POINTER(images.data_ptr()), len(images), trunk.addresses,
            ctypes.c_double(momentum), ctypes.c_double(epsilon), POINTER(features.data_ptr()),
        )  # fmt: skip
        trunk.passes += 1
        ctx.trunk, ctx.number = trunk, trunk.passes
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        trunk: Trunk = ctx.trunk
        assert ctx.number == trunk.passes, "the activations were replaced by another forward pass"
        features = gradients[0].contiguous()
        first = trunk.weights[0].grad is None
        if first:
            for weight, gradient in zip(trunk.weights, trunk.gradients, strict=True):
                weight.grad = gradient
        assert trunk.weights[0].grad is trunk.gradients[0]
        trunk.library.trunk_backward(
            trunk.handle, POINTER(features.data_ptr()), len(trunk.convs),
            trunk.gradient_addresses, not first,
        )  # fmt: skip
        return (None,) * 5


def pointers(tensors: Sequence[Tensor]) -> ctypes.Array[POINTER]:
    """Return an array of the tensors' addresses."""
    return (POINTER * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
