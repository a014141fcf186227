"""Batch norm's sums over the pixels of a share, in parts and in order, for other kernels.

The kernel that computes a map also sums its values, one part per program. The kernels that read
the map merge the parts, always in the same order, so the bits of a step are the same every time.
"""

import triton
import triton.language as tl

EPSILON = tl.constexpr(1e-5)  # of batch norm


@triton.jit
def loaded_parts(parts, share, count, MOST: tl.constexpr, CHANNELS: tl.constexpr):
    """Return the two numbers per channel of a share's parts, [MOST, C] each, padded with zeros.

    `parts` is [shares, count, 2, C].
    """
    part, channel = tl.arange(0, MOST), tl.arange(0, CHANNELS)
    there = (part < count)[:, None]
    at = parts + ((share * count + part) * 2 * CHANNELS)[:, None] + channel[None, :]
    first = tl.load(at, mask=there, other=0.0)
    return first, tl.load(at + CHANNELS, mask=there, other=0.0)


@triton.jit
def merged_moments(
    parts, share, count, part_rows,
    MOST: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Return the mean and the biased variance of each channel over the `ROWS` pixels of a share.

    `parts` holds the mean and the squared deviations from it of each part, [shares, count, 2, C]. A
    part has `part_rows` pixels, the last one perhaps fewer; there are at most MOST parts.
    """
    means, deviations = loaded_parts(parts, share, count, MOST, CHANNELS)
    part = tl.arange(0, MOST)
    rows = tl.minimum(part_rows, ROWS - part * part_rows).to(tl.float32)
    rows = tl.where(part < count, rows, 0.0)[:, None]
    mean = tl.sum(means * rows, 0) / ROWS
    apart = means - mean[None, :]
    return mean, tl.sum(deviations + apart * apart * rows, 0) / ROWS


@triton.jit
def merged_sums(parts, share, count, MOST: tl.constexpr, CHANNELS: tl.constexpr):
    """Return two sums for each channel, from `parts` [shares, count, 2, C]."""
    first, second = loaded_parts(parts, share, count, MOST, CHANNELS)
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def extended(mean, deviations, count, values, inside):
    """Extend the moments of `count` rows by the rows of `values` [R, C] that are `inside` [R].

    Return the new moments and count (Chan, Golub and LeVeque, 1983).
    """
    more = tl.sum(inside.to(tl.float32), 0)
    divisor = tl.maximum(more, 1.0)
    kept = tl.where(inside[:, None], values, 0.0)
    own_mean = tl.sum(kept, 0) / divisor
    apart = tl.where(inside[:, None], values - own_mean[None, :], 0.0)
    total = count + more
    step = own_mean - mean
    part = more / tl.maximum(total, 1.0)
    deviations += tl.sum(apart * apart, 0) + step * step * count * part
    return mean + step * part, deviations, total
