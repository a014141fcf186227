"""The forward and backward pass of a 6n+2 net for a mini-batch of several shares, on a GPU."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reslab.kernels.gpu import convolution, layers
from reslab.kernels.gpu.plan import (
    DATA_GRADIENT,
    FORWARD,
    IMAGE_CHANNELS,
    WEIGHT_GRADIENT,
    Shape,
    data_split,
    forward_split,
    options,
    padded,
    shapes_of,
    weight_split,
)
from reslab.kernels.trunk import TrunkLayer

PIXELS = 256  # of an image, for a program that crops
VALUES = 4096  # of a map, for a program without a matrix product


@dataclass(frozen=True)
class Node:
    """A convolution with its batch norm, and the memory for their results and gradients."""

    layer: TrunkLayer
    shape: Shape
    weight: Tensor  # a copy in the type of the maps, [out, 3, 3, in]
    y: Tensor  # the result of the convolution, [B, side, side, out]
    g: Tensor  # the gradient after batch norm
    z: Tensor  # after batch norm, shortcut and ReLU
    dy: Tensor  # the gradient of y
    moments: Tensor  # of y, in parts, [shares, parts, 2, out]
    sums: Tensor  # of g, and of g times the normed y, in parts, [shares, parts, 2, out]
    statistics: Tensor  # mean and variance of y for each share, [shares, 2 out]
    share_gradients: Tensor  # the gradients of beta and gamma from each share, [shares, 2 out]
    norm_gradients: Tensor  # their sum, [2 out]
    weight_parts: Tensor  # the gradient of the weights, in parts, [parts, out, 3, 3, in]
    weight_gradient: Tensor  # their sum, [out, 3, 3, in]


class Branch:
    """Work of a stream of its own, which a CUDA graph executes beside the main stream's."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __enter__(self) -> None:
        """Begin work that depends on all that the main stream was given so far."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream())
            self.context = torch.cuda.stream(self.stream)
            self.context.__enter__()

    def __exit__(self, *error: object) -> None:
        if self.stream is not None:
            self.context.__exit__(*error)

    def join(self) -> None:
        """Make the main stream wait for this one."""
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)


def launch(kernel: Any, programs: tuple[int, ...], *arguments: object, **constants: object) -> None:
    """Start a Triton kernel with a number of programs along each axis."""
    kernel[programs](*arguments, **constants)


class GpuStep:
    """Losses and gradients of a mini-batch, with memory for all that is computed on the way.

    The gradients are those of the mean loss over all shares. Every call overwrites the results.
    """

    def __init__(
        self, trunk: Sequence[TrunkLayer], weight: Tensor, bias: Tensor, images: Tensor,
        labels: Tensor, *, shares: int, share: int, pad: int,
    ) -> None:  # fmt: skip
        """Prepare for mini-batches of `shares` shares of `share` images.

        `images` [N, S, S, 4] are the whole training set, preprocessed, with a channel of zeros;
        all maps have their type. `weight` and `bias` are the classifier's.
        """
        self.trunk, self.weight, self.bias = trunk, weight, bias
        self.images, self.labels, self.pad = images, labels, pad
        self.shares, self.share = shares, share
        batch, side = shares * share, images.shape[1]
        self.shapes = shapes_of(trunk, side)
        self.input = images.new_zeros(batch, side, side, IMAGE_CHANNELS)
        self.statistics = weight.new_zeros(shares, 2 * sum(shape.channels for shape in self.shapes))
        self.correction = torch.ones_like(self.statistics[0], dtype=torch.float64)
        self.share_gradients = torch.zeros_like(self.statistics)
        self.norm_gradients = torch.zeros_like(self.statistics[0])
        self.weight_parts: dict[Shape, Tensor] = {}
        self.weight_gradients: dict[Shape, Tensor] = {}
        for shape in dict.fromkeys(self.shapes):
            count = self.shapes.count(shape)
            parts = shares * weight_split(shape, self.share).parts
            self.weight_parts[shape] = weight.new_zeros(count, parts, *shape.weight)
            self.weight_gradients[shape] = weight.new_zeros(count, *shape.weight)
        self.rounded = images.new_zeros(sum(math.prod(shape.weight) for shape in self.shapes))
        self.nodes = self.build(batch)
        self.stem_gradient = weight.new_zeros(self.shapes[0].channels, 3, 3, 3)  # without zeros
        self.features = weight.new_zeros(batch, weight.shape[1])
        self.score_gradients = weight.new_zeros(batch, len(weight))
        self.losses, self.errors = weight.new_zeros(batch), weight.new_zeros(batch)
        self.classifier_gradients = torch.zeros_like(weight), torch.zeros_like(bias)
        self.branch = Branch(images.device)

    def build(self, batch: int) -> list[Node]:
        """Allocate the memory of each layer."""
        nodes, seen, column = [], dict.fromkeys(self.shapes, 0), 0
        weights = self.rounded.split([math.prod(shape.weight) for shape in self.shapes])
        for number, (layer, shape) in enumerate(zip(self.trunk, self.shapes, strict=True)):
            out, index = shape.channels, seen[shape]
            seen[shape] += 1
            columns = slice(column, column + 2 * out)
            column += 2 * out
            pixels = self.share * shape.side**2
            self.correction[columns][out:] = pixels / (pixels - 1)
            y = self.images.new_zeros(batch, shape.side, shape.side, out)
            parts = forward_split(shape, self.share).parts
            # the gradient comes from the next convolution, or image by image from the classifier
            after = self.shapes[number + 1 : number + 2]
            sum_parts = data_split(after[0], self.share).parts if after else self.share
            nodes.append(
                Node(
                    layer, shape,
                    weight=weights[number].view(shape.weight),
                    y=y, g=torch.zeros_like(y),
                    z=torch.zeros_like(y), dy=torch.zeros_like(y),
                    moments=self.weight.new_zeros(self.shares, parts, 2, out),
                    sums=self.weight.new_zeros(self.shares, sum_parts, 2, out),
                    statistics=self.statistics[:, columns],
                    share_gradients=self.share_gradients[:, columns],
                    norm_gradients=self.norm_gradients[columns],
                    weight_parts=self.weight_parts[shape][index],
                    weight_gradient=self.weight_gradients[shape][index],
                )
            )  # fmt: skip
        return nodes

    def gradients(self) -> list[tuple[Tensor, Tensor]]:
        """Return each trained tensor with the memory that holds its gradient after a call."""
        pairs = []
        for node in self.nodes:
            conv, out = node.layer.conv, node.shape.channels
            weight = self.stem_gradient if node is self.nodes[0] else node.weight_gradient
            beta, gamma = node.norm_gradients[:out], node.norm_gradients[out:]
            pairs += [
                (conv.weight, weight.permute(0, 3, 1, 2)), (conv.beta, beta), (conv.gamma, gamma),
            ]  # fmt: skip
        return [*pairs, *zip((self.weight, self.bias), self.classifier_gradients, strict=True)]

    def unbiased_statistics(self) -> Tensor:
        """Return mean and unbiased variance of every batch norm, float64 [shares, numbers]."""
        return self.statistics.double() * self.correction

    @torch.no_grad()
    def forward(self, indices: Tensor, offsets: Tensor | None, flips: Tensor | None) -> None:
        """Compute the losses and errors of the images at `indices`, and the statistics.

        `offsets` and `flips` are the arguments of `pad_and_crop`.
        """
        self.round_weights()
        self.crop(indices, offsets, flips)
        for number in range(len(self.nodes)):
            self.convolve(number)
        self.classify(indices)

    @torch.no_grad()
    def backward(self) -> None:
        """Compute the gradients; those of the weights in a branch, as no other waits for them."""
        with self.branch:
            self.differentiate_classifier()
        for number in reversed(range(len(self.nodes))):
            self.differentiate_norm(number)
            with self.branch:
                self.differentiate_weights(number)
            if number:
                self.differentiate_data(number)
        torch.sum(self.share_gradients, 0, out=self.norm_gradients)
        self.branch.join()

    def round_weights(self) -> None:
        """Copy the weights of all convolutions, in the type of the maps."""
        weights = [node.layer.conv.weight.permute(0, 2, 3, 1) for node in self.nodes]
        self.nodes[0].weight[..., :3].copy_(weights[0])
        later = torch.cat([weight.flatten() for weight in weights[1:]])  # faster than one by one
        self.rounded[self.nodes[0].weight.numel() :].copy_(later)

    def crop(self, indices: Tensor, offsets: Tensor | None, flips: Tensor | None) -> None:
        side = self.images.shape[1]
        launch(
            layers.crop, (len(self.input), -(-side * side // PIXELS)),
            self.images, indices, offsets, *(offsets.stride() if offsets is not None else (0, 0)),
            flips, self.input,
            SIDE=side, PAD=self.pad, CROPPED=offsets is not None, FLIPPED=flips is not None,
            BLOCK=PIXELS,
        )  # fmt: skip

    def source(self, number: int) -> Tensor:
        """Return the map that a convolution reads."""
        return self.nodes[number - 1].z if number else self.input

    def convolve(self, number: int) -> None:
        """Compute a node's convolution, batch norm, shortcut and ReLU."""
        node, shape = self.nodes[number], self.nodes[number].shape
        own = forward_split(shape, self.share)
        launch(
            convolution.forward, (own.parts, self.shares),
            self.source(number), node.weight, node.y, node.moments,
            **self.sizes(shape), **options(FORWARD[shape.channels], own, shape.channels_in),
        )  # fmt: skip
        with_shortcut = node.layer.shortcut != "none"
        start = self.nodes[number - 2] if with_shortcut else node
        block = VALUES // shape.channels
        launch(
            layers.norm_relu, (-(-self.share * shape.side**2 // block), self.shares),
            node.y, node.moments, own.parts, own.rows,
            node.layer.conv.gamma, node.layer.conv.beta, start.z, node.z,
            node.statistics, self.statistics.stride(0),
            IMAGES=self.share, SIDE=shape.side, CHANNELS=shape.channels,
            STRIDE=self.nodes[number - 1].shape.stride * shape.stride if with_shortcut else 0,
            SHORTCUT_SIDE=start.shape.side, SHORTCUT_CHANNELS=start.shape.channels,
            BLOCK=block, MOST=padded(own.parts),
        )  # fmt: skip

    def sizes(self, shape: Shape) -> dict[str, int]:
        """Return the kernels' arguments for the sizes of a convolution."""
        return {
            "IMAGES": self.share, "SIDE_IN": shape.side_in, "SIDE": shape.side,
            "STRIDE": shape.stride, "IN": shape.channels_in, "OUT": shape.channels,
        }  # fmt: skip

    def classify(self, indices: Tensor) -> None:
        """Compute losses and errors, and the gradients as far as the last batch norm."""
        last = self.nodes[-1]
        pixels = last.shape.side**2
        launch(
            layers.classify, (len(indices),),
            last.z, last.y, last.statistics, self.statistics.stride(0), self.weight, self.bias,
            self.labels, indices,
            last.g, last.sums, self.features, self.score_gradients, self.losses, self.errors,
            BATCH=len(indices), IMAGES=self.share, PIXELS=pixels, CHANNELS=last.shape.channels,
            CLASSES=len(self.weight), PADDED_CLASSES=padded(len(self.weight)),
            BLOCK=padded(pixels),
        )  # fmt: skip

    def differentiate_norm(self, number: int) -> None:
        """Compute the gradient of the result of a node's convolution."""
        node, shape = self.nodes[number], self.nodes[number].shape
        rows = self.share * shape.side**2
        block, parts = VALUES // shape.channels, node.sums.shape[1]
        launch(
            layers.norm_gradient, (-(-rows // block), self.shares),
            node.g, node.y, node.sums, parts, node.layer.conv.gamma,
            node.statistics, node.share_gradients, self.statistics.stride(0), node.dy,
            ROWS=rows, CHANNELS=shape.channels, BLOCK=block, MOST=padded(parts),
        )  # fmt: skip

    def differentiate_data(self, number: int) -> None:
        """Compute the gradient after the batch norm of the node before."""
        node, shape, before = self.nodes[number], self.nodes[number].shape, self.nodes[number - 1]
        own, tile = data_split(shape, self.share), DATA_GRADIENT[shape.channels]
        after = self.nodes[number + 1] if number + 1 < len(self.nodes) else node
        shortcut = after is not node and after.layer.shortcut != "none"
        launch(
            convolution.data_gradient, (own.parts, self.shares),
            node.dy, node.weight, after.g, before.z, before.y,
            before.statistics, self.statistics.stride(0), before.g, before.sums,
            **self.sizes(shape), **options(tile, own, shape.channels, gaps=shape.stride > 1),
            SHORTCUT=shape.stride * after.shape.stride if shortcut else 0,
            SHORTCUT_CHANNELS=after.shape.channels,
        )  # fmt: skip

    def differentiate_weights(self, number: int) -> None:
        """Compute the gradient of a node's weights, in parts."""
        node, shape = self.nodes[number], self.nodes[number].shape
        own = weight_split(shape, self.share)
        chosen = options(WEIGHT_GRADIENT[shape.channels], own, shape.channels_in)
        launch(
            convolution.weight_gradient, (own.parts, self.shares, 9 // chosen["GROUP"]),
            self.source(number), node.dy, node.weight_parts, **self.sizes(shape), **chosen,
        )  # fmt: skip
        if number == self.shapes.index(shape):  # the parts of all nodes of this shape are there
            torch.sum(self.weight_parts[shape], 1, out=self.weight_gradients[shape])
        if number == 0:
            self.stem_gradient.copy_(node.weight_gradient[..., :3])

    def differentiate_classifier(self) -> None:
        weight, bias = self.classifier_gradients
        torch.mm(self.score_gradients.T, self.features, out=weight)
        torch.sum(self.score_gradients, 0, out=bias)
