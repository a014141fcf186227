"""The 3x3 convolutions of the 6n+2 nets and both of their gradients, as matrix products.

All maps are channels-last, [images, side, side, channels], and a row of a matrix is a pixel. The
inner dimension runs over GROUP adjacent pixels of one row of the image and their channels, which
are adjacent in memory; it is padded to INNER, a power of two. Weights are [out, 3, 3, in].

A program computes BLOCKS blocks of BLOCK pixels of one share. While it writes the result, it takes
the sums that batch norm needs.
"""

import triton
import triton.language as tl

from reslab.kernels.gpu.moments import EPSILON, extended


@triton.jit
def input_pixels(
    x, row, share, step,
    IMAGES: tl.constexpr, SIDE_IN: tl.constexpr, SIDE: tl.constexpr, STRIDE: tl.constexpr,
    IN: tl.constexpr, GROUP: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Return what a step of the inner dimension reads of x for the output pixels `row` [R].

    The result, [R, INNER], is zero outside of the image, and for rows after the share's last one.
    """
    inner = tl.arange(0, INNER)
    inside = row < IMAGES * SIDE * SIDE
    image = share * IMAGES + row // (SIDE * SIDE)
    i, j = row // SIDE % SIDE, row % SIDE
    source_i = i * STRIDE + step * GROUP // 3 - 1
    first_j = j * STRIDE + step * GROUP % 3 - 1
    source_j = first_j[:, None] + (inner // IN)[None, :]
    there = (inside & (source_i >= 0) & (source_i < SIDE_IN))[:, None]
    there = there & (source_j >= 0) & (source_j < SIDE_IN) & (inner < GROUP * IN)[None, :]
    pixel = (image * SIDE_IN + source_i) * SIDE_IN + first_j
    return tl.load(x + (pixel * IN)[:, None] + inner[None, :], mask=there, other=0.0)


@triton.jit
def forward(
    x, weight, y, moments,
    IMAGES: tl.constexpr, SIDE_IN: tl.constexpr, SIDE: tl.constexpr, STRIDE: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, GROUP: tl.constexpr, INNER: tl.constexpr,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Convolve x, and take the moments of the result, [shares, parts, 2, out]."""
    part, share = tl.program_id(0), tl.program_id(1)
    rows: tl.constexpr = IMAGES * SIDE * SIDE
    inner, out = tl.arange(0, INNER), tl.arange(0, OUT)
    mean = tl.zeros((OUT,), tl.float32)
    deviations = tl.zeros((OUT,), tl.float32)
    count = 0.0
    for block in range(BLOCKS):
        row = (part * BLOCKS + block) * BLOCK + tl.arange(0, BLOCK)
        inside = row < rows
        product = tl.zeros((BLOCK, OUT), tl.float32)
        for step in range(9 // GROUP):
            a = input_pixels(x, row, share, step, IMAGES, SIDE_IN, SIDE, STRIDE, IN, GROUP, INNER)
            place = (out * 9 * IN)[None, :] + (step * GROUP * IN + inner)[:, None]
            b = tl.load(weight + place, mask=(inner < GROUP * IN)[:, None], other=0.0)
            product = tl.dot(a, b, product)
        values = product.to(y.dtype.element_ty)
        at = ((share * rows + row) * OUT)[:, None] + out[None, :]
        tl.store(y + at, values, mask=inside[:, None])
        mean, deviations, count = extended(mean, deviations, count, values.to(tl.float32), inside)
    part_at = moments + (share * PARTS + part) * 2 * OUT + out
    tl.store(part_at, mean)
    tl.store(part_at + OUT, deviations)


@triton.jit
def data_gradient(
    dy, weight, shortcut, z, before, statistics, statistics_row, g, sums,
    IMAGES: tl.constexpr, SIDE_IN: tl.constexpr, SIDE: tl.constexpr, STRIDE: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, GROUP: tl.constexpr, INNER: tl.constexpr,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr, PARTS: tl.constexpr,
    SHORTCUT: tl.constexpr, SHORTCUT_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute the gradient g after the batch norm before a convolution, and its two sums.

    dy is the gradient of the convolution's result; z, ReLU's result, is what it read, and `before`
    what the batch norm before read, with its `statistics`. SHORTCUT is the stride of the shortcut
    whose gradient is added, or 0.
    """
    part, share = tl.program_id(0), tl.program_id(1)
    rows: tl.constexpr = IMAGES * SIDE_IN * SIDE_IN
    inner, channel = tl.arange(0, INNER), tl.arange(0, IN)
    own = statistics + share * statistics_row + channel
    mean, inverse = tl.load(own)[None, :], tl.rsqrt(tl.load(own + IN) + EPSILON)[None, :]
    total, weighted = tl.zeros((IN,), tl.float32), tl.zeros((IN,), tl.float32)
    for block in range(BLOCKS):
        row = (part * BLOCKS + block) * BLOCK + tl.arange(0, BLOCK)
        inside = row < rows
        image = share * IMAGES + row // (SIDE_IN * SIDE_IN)
        i, j = row // SIDE_IN % SIDE_IN, row % SIDE_IN
        product = tl.zeros((BLOCK, IN), tl.float32)
        for step in range(9 // GROUP):
            q = step * GROUP % 3 + inner // OUT  # the tap of this row in reverse
            up = i + 1 - step * GROUP // 3
            left = (j - 1)[:, None] + q[None, :]
            there = (inside & (up >= 0) & (up % STRIDE == 0) & (up // STRIDE < SIDE))[:, None]
            there = there & (left >= 0) & (left % STRIDE == 0) & (left // STRIDE < SIDE)
            there = there & (inner < GROUP * OUT)[None, :]
            if STRIDE == 1:
                pixel = (image * SIDE + up) * SIDE + j - 1 + step * GROUP % 3
                at = (pixel * OUT)[:, None] + inner[None, :]
            else:
                pixels = ((image * SIDE + up // STRIDE) * SIDE)[:, None] + left // STRIDE
                at = pixels * OUT + (inner % OUT)[None, :]
            a = tl.load(dy + at, mask=there, other=0.0)
            tap = step * GROUP // 3 * 3 + 2 - q
            place = ((inner % OUT) * 9 * IN + tap * IN)[:, None] + channel[None, :]
            b = tl.load(weight + place, mask=(inner < GROUP * OUT)[:, None], other=0.0)
            product = tl.dot(a, b, product)
        if SHORTCUT > 0:
            side: tl.constexpr = (SIDE_IN + SHORTCUT - 1) // SHORTCUT
            with_gradient = inside & (i % SHORTCUT == 0) & (j % SHORTCUT == 0)
            source = ((image * side + i // SHORTCUT) * side + j // SHORTCUT) * SHORTCUT_CHANNELS
            source_at = shortcut + source[:, None] + channel[None, :]
            product += tl.load(source_at, mask=with_gradient[:, None], other=0.0).to(tl.float32)
        place_of = ((share * rows + row) * IN)[:, None] + channel[None, :]
        result = tl.load(z + place_of, mask=inside[:, None], other=0.0)
        values = tl.where(result > 0, product, 0.0).to(g.dtype.element_ty)
        tl.store(g + place_of, values, mask=inside[:, None])
        values = values.to(tl.float32)
        read = tl.load(before + place_of, mask=inside[:, None], other=0.0).to(tl.float32)
        total += tl.sum(values, 0)
        weighted += tl.sum(values * (read - mean) * inverse, 0)
    part_at = sums + (share * PARTS + part) * 2 * IN + channel
    tl.store(part_at, total)
    tl.store(part_at + IN, weighted)


@triton.jit
def weight_gradient(
    x, dy, result,
    IMAGES: tl.constexpr, SIDE_IN: tl.constexpr, SIDE: tl.constexpr, STRIDE: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, GROUP: tl.constexpr, INNER: tl.constexpr,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Compute a part of the gradient of the weights, [shares, parts, out, 3, 3, in].

    x is what the convolution read, and dy the gradient of its result.
    """
    part, share, step = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows: tl.constexpr = IMAGES * SIDE * SIDE
    inner, out = tl.arange(0, INNER), tl.arange(0, OUT)
    product = tl.zeros((INNER, OUT), tl.float32)
    for block in range(BLOCKS):
        row = (part * BLOCKS + block) * BLOCK + tl.arange(0, BLOCK)
        inside = row < rows
        a = input_pixels(x, row, share, step, IMAGES, SIDE_IN, SIDE, STRIDE, IN, GROUP, INNER)
        at = ((share * rows + row) * OUT)[:, None] + out[None, :]
        b = tl.load(dy + at, mask=inside[:, None], other=0.0)
        product = tl.dot(tl.trans(a), b, product)
    place = (out * 9 * IN)[None, :] + (step * GROUP * IN + inner)[:, None]
    mine = result + (share * PARTS + part) * OUT * 9 * IN
    tl.store(mine + place, product, mask=(inner < GROUP * IN)[:, None])
