"""The other kernels of a 6n+2 net's step: images, batch norm with shortcut and ReLU, classifier."""

import triton
import triton.language as tl

from reslab.kernels.gpu.moments import EPSILON, merged_moments, merged_sums


@triton.jit
def crop(
    images, indices, offsets, image_stride, axis_stride, flips, result,
    SIDE: tl.constexpr, PAD: tl.constexpr, CROPPED: tl.constexpr, FLIPPED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Pad, crop and mirror images of four channels, the augmentation of Sec. 4.2.

    A program writes BLOCK pixels of one image. `indices`, `offsets` and `flips` are those of the
    mini-batch, as in `pad_and_crop`.
    """
    image = tl.program_id(0)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(indices + image)
    i, j = pixel // SIDE, pixel % SIDE
    if FLIPPED:
        j = tl.where(tl.load(flips + image) != 0, SIDE - 1 - j, j)
    if CROPPED:
        i += tl.load(offsets + image * image_stride).to(tl.int32) - PAD
        j += tl.load(offsets + image * image_stride + axis_stride).to(tl.int32) - PAD
    inside = pixel < SIDE * SIDE
    there = inside & (i >= 0) & (i < SIDE) & (j >= 0) & (j < SIDE)
    channel = tl.arange(0, 4)[None, :]
    at = images + source * (SIDE * SIDE * 4) + ((i * SIDE + j) * 4)[:, None] + channel
    values = tl.load(at, mask=there[:, None], other=0.0)
    at = result + image * (SIDE * SIDE * 4) + (pixel * 4)[:, None] + channel
    tl.store(at, values, mask=inside[:, None])


@triton.jit
def norm_relu(
    y, moments, parts, part_rows, gamma, beta, shortcut, z, statistics, statistics_row,
    IMAGES: tl.constexpr, SIDE: tl.constexpr, CHANNELS: tl.constexpr,
    STRIDE: tl.constexpr, SHORTCUT_SIDE: tl.constexpr, SHORTCUT_CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """Compute z = ReLU(batch norm(y) + shortcut), and write the statistics of y.

    STRIDE is that of the shortcut, the identity or option A with zeros at the end; 0: no shortcut.
    """
    share = tl.program_id(1)
    rows: tl.constexpr = IMAGES * SIDE * SIDE
    channel = tl.arange(0, CHANNELS)
    mean, variance = merged_moments(moments, share, parts, part_rows, MOST, rows, CHANNELS)
    if tl.program_id(0) == 0:
        at = statistics + share * statistics_row + channel
        tl.store(at, mean)
        tl.store(at + CHANNELS, variance)
    factor = tl.load(gamma + channel) * tl.rsqrt(variance + EPSILON)
    shift = tl.load(beta + channel) - mean * factor
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < rows)[:, None]
    at = ((share * rows + row) * CHANNELS)[:, None] + channel[None, :]
    values = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    values = values * factor[None, :] + shift[None, :]
    if STRIDE > 0:
        image = share * IMAGES + row // (SIDE * SIDE)
        i, j = row // SIDE % SIDE * STRIDE, row % SIDE * STRIDE
        pixel = (image * SHORTCUT_SIDE + i) * SHORTCUT_SIDE + j
        there = inside & (channel < SHORTCUT_CHANNELS)[None, :]
        source = shortcut + (pixel * SHORTCUT_CHANNELS)[:, None] + channel[None, :]
        values += tl.load(source, mask=there, other=0.0).to(tl.float32)
    tl.store(z + at, tl.maximum(values, 0.0).to(z.dtype.element_ty), mask=inside)


@triton.jit
def norm_gradient(
    g, y, sums, parts, gamma, statistics, gradients, statistics_row, dy,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """Compute dy, the gradient before batch norm, from the gradient g after it.

    `sums` are those of g and of g times the normed y, in parts; `gradients` receives their totals,
    which are the gradients of beta and gamma. A share has ROWS pixels.
    """
    share = tl.program_id(1)
    channel = tl.arange(0, CHANNELS)
    total, weighted = merged_sums(sums, share, parts, MOST, CHANNELS)
    at_channel = share * statistics_row + channel
    if tl.program_id(0) == 0:
        tl.store(gradients + at_channel, total)
        tl.store(gradients + at_channel + CHANNELS, weighted)
    mean = tl.load(statistics + at_channel)
    inverse = tl.rsqrt(tl.load(statistics + at_channel + CHANNELS) + EPSILON)
    factor = tl.load(gamma + channel) * inverse
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < ROWS)[:, None]
    at = ((share * ROWS + row) * CHANNELS)[:, None] + channel[None, :]
    after = tl.load(g + at, mask=inside, other=0.0).to(tl.float32)
    normed = tl.load(y + at, mask=inside, other=0.0).to(tl.float32) - mean[None, :]
    normed = normed * inverse[None, :]
    before = after - (total / ROWS)[None, :] - normed * (weighted / ROWS)[None, :]
    tl.store(dy + at, (before * factor[None, :]).to(dy.dtype.element_ty), mask=inside)


@triton.jit
def classify(
    z, y, statistics, statistics_row, weight, bias, labels, indices,
    g, sums, features, score_gradients, losses, errors,
    BATCH: tl.constexpr, IMAGES: tl.constexpr, PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr, CLASSES: tl.constexpr, PADDED_CLASSES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Pool and classify an image, and go back to the gradient of the last batch norm.

    It writes the pooled features [B, C], the gradients of the scores [B, classes], the loss and
    the error (0 or 1) of each image, the gradient `g` and its two sums. The gradients are those of
    the mean loss over all BATCH images; ties between scores go to the lower class.
    """
    image = tl.program_id(0)
    share = image // IMAGES
    channel, row, cls = tl.arange(0, CHANNELS), tl.arange(0, BLOCK), tl.arange(0, PADDED_CLASSES)
    at = ((image * PIXELS + row) * CHANNELS)[:, None] + channel[None, :]
    inside = (row < PIXELS)[:, None]
    last = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
    pooled = tl.sum(last, 0) / PIXELS
    tl.store(features + image * CHANNELS + channel, pooled)
    known = cls < CLASSES
    matrix = tl.load(
        weight + (cls * CHANNELS)[:, None] + channel[None, :], mask=known[:, None], other=0.0
    )
    scores = tl.sum(matrix * pooled[None, :], 1) + tl.load(bias + cls, mask=known, other=0.0)
    scores = tl.where(known, scores, float("-inf"))
    label = tl.load(labels + tl.load(indices + image))
    of_label = tl.sum(tl.where(cls == label, scores, 0.0), 0)
    highest = tl.max(scores, 0)
    powers = tl.exp(scores - highest)
    total = tl.sum(powers, 0)
    tl.store(losses + image, highest + tl.log(total) - of_label)
    ahead = known & ((scores > of_label) | ((scores == of_label) & (cls < label)))
    finite = (of_label - of_label) == 0.0
    wrong = (tl.sum(ahead.to(tl.int32), 0) > 0) | (finite == 0)
    tl.store(errors + image, wrong.to(tl.float32))
    difference = (powers / total - (cls == label).to(tl.float32)) / BATCH
    tl.store(score_gradients + image * CLASSES + cls, difference, mask=known)
    back = tl.sum(matrix * difference[:, None], 0) / PIXELS
    values = tl.where((last > 0) & inside, back[None, :], 0.0).to(g.dtype.element_ty)
    tl.store(g + at, values, mask=inside)
    at_statistics = statistics + share * statistics_row + channel
    mean, inverse = tl.load(at_statistics), tl.rsqrt(tl.load(at_statistics + CHANNELS) + EPSILON)
    read = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    values = values.to(tl.float32)
    at = sums + image * 2 * CHANNELS + channel
    tl.store(at, tl.sum(values, 0))
    tl.store(at + CHANNELS, tl.sum(values * (read - mean[None, :]) * inverse[None, :], 0))
