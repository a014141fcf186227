"""Convolutions for inference on a CPU: bias, addition and ReLU within oneDNN's convolution.

Outputs are written once instead of up to four times, and weights keep the layout of the kernel.
torch's compiler generates calls of the same operators; calling them directly does not import it.
"""

from typing import Any

import torch
from torch import Tensor, nn

OPERATORS = (
    "mkldnn::_convolution_pointwise",
    "mkldnn::_convolution_pointwise_.binary",
    "mkldnn::_reorder_convolution_weight",
)


def can_fuse(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether `FusedConv` works with this type of weights on this device."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    # private operators: another version of torch may lack them
    if not all(map(torch._C._dispatch_has_kernel, OPERATORS)):
        return False
    bf16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or bf16


class FusedConv(nn.Module):
    """A convolution with the weights of `conv`, optionally with ReLU; without gradients.

    [B, c_in, H, W] -> [B, c_out, h, w]
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool) -> None:
        super().__init__()
        assert conv.bias is not None
        assert not isinstance(conv.padding, str)
        self.weight, self.bias = conv.weight.detach(), conv.bias.detach()
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.activation = "relu" if relu else "none"
        self.last_shape: list[int] = []
        self.packed_shape: list[int] = []
        self.packed = self.weight

    def __getstate__(self) -> dict[str, Any]:  # torch can neither copy nor pickle packed weights
        return vars(self) | {"packed": self.weight, "packed_shape": []}

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise.default(
            x, self.weight_for(x), self.bias, *self.geometry, self.activation, [], ""
        )

    def add_relu_(self, x: Tensor, total: Tensor) -> Tensor:
        """Return ReLU(conv(x) + total), [B, c_out, h, w], in the memory of `total`."""
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            total, x, self.weight_for(x), self.bias, *self.geometry, "add", 1.0, "relu", [], None
        )

    def weight_for(self, x: Tensor) -> Tensor:
        """Return the weights in the layout that suits inputs of this shape.

        Any layout gives the right output: for one that does not suit, oneDNN converts the weights
        in every call. Converting them here pays from the second input of a shape.
        """
        shape = list(x.shape)
        if shape != self.last_shape:
            self.last_shape = shape
        elif shape != self.packed_shape:
            self.packed = torch.ops.mkldnn._reorder_convolution_weight.default(
                self.weight, *self.geometry, shape
            )
            self.packed_shape = shape
        return self.packed
