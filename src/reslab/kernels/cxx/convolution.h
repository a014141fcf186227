// A convolution of one image, and the gradient of its input.
#pragma once

#include <algorithm>
#include <vector>

#include "batchnorm.h"
#include "tiles.h"

// A convolution without bias, padded to keep the size, followed by batch norm. The image that the
// net sees has a fourth channel of zeros, so that `in` is a multiple of GROUP and of the tile.
struct Conv {
    int in, out, kernel, stride, side;  // side: of the output
    bool by_winograd;                   // see winograd.h
    const float* weights_now;           // Python's, as of the last `pack`
    Norm norm;
    std::vector<Stored> forward, backward;  // the packed weights for each direction

    int real_in() const { return in == 4 ? 3 : in; }
    int taps() const { return kernel * kernel; }
    size_t weights() const { return size_t(in) * taps() * out; }
    size_t pixels() const { return size_t(side) * side; }
    int tiles() const { return (side / 4) * (side / 4); }  // of Winograd's
    int in_side() const { return side * stride; }
    Tap backward_tap(int tap, std::ptrdiff_t offset) const {
        return {offset, backward.data() + size_t(tap) * out * vectors_for(in) * LANES, taps()};
    }
};

// A stage begins with stride 2, and twice the channels.
constexpr int stride_of(int in, int out) { return in == 4 || in == out ? 1 : 2; }

// Distances in a padded map, in elements: from one row to the next, and from the beginning to the
// first pixel that is not padding.
INLINE std::ptrdiff_t row_step(int side, int channels) {
    return std::ptrdiff_t(side + 2) * channels;
}
INLINE std::ptrdiff_t first_pixel(int side, int channels) {
    return row_step(side, channels) + channels;
}

// Pack the weights, [out][kernel][kernel][real_in()], for the forward tiles, and transposed for
// those of the gradient of the input.
static void pack(Conv& conv, const float* weights) {
    conv.weights_now = weights;
    if (conv.by_winograd) return;
    const int taps = conv.taps(), in = conv.in, out = conv.out, real_in = conv.real_in();
    auto packed = [&](std::vector<Stored>& to, int outputs, int inputs, auto weight) {
        const int width = vectors_for(outputs) * LANES;
        to.resize(size_t(outputs) * taps * inputs);
        Stored* next = to.data();
        for (int block = 0; block < outputs; block += width)
            for (int tap = 0; tap < taps; tap++)
                for (int c = 0; c < inputs; c += GROUP)
                    for (int lane = 0; lane < width; lane++)
                        for (int k = 0; k < GROUP; k++)
                            *next++ = stored(weight(block + lane, tap, c + k));
    };
    auto at = [&](int o, int tap, int c) {
        return c < real_in ? weights[(size_t(o) * taps + tap) * real_in + c] : 0.f;
    };
    packed(conv.forward, out, in, at);
    if (in >= LANES) packed(conv.backward, in, out, [&](int c, int tap, int o) {
        return at(o, tap, c);
    });
}

template <int COUNT>
INLINE int tiles_of(int side) {
    return (side * side + COUNT - 1) / COUNT;
}

// Call `body(start, y, x, repeated)` for tiles of COUNT pixels of a map, in order. The last tile
// ends with the map; its first `repeated` pixels belong to the tile before it. In a RUN, the pixels
// are neighbours in a row, whose length is a multiple of COUNT.
template <int COUNT, bool RUN = false, class Body>
INLINE void for_each_tile(int side, Body body) {
    const int total = side * side;
    int y[COUNT], x[COUNT];
    if constexpr (RUN) {
        for (int row = 0; row < side; row++)
            for (int column = 0; column < side; column += COUNT) {
                UNROLL for (int p = 0; p < COUNT; p++) y[p] = row, x[p] = column + p;
                body(row * side + column, y, x, 0);
            }
        return;
    }
    for (int start = 0; start < total; start += COUNT) {
        int repeated = std::max(0, start + COUNT - total);
        start -= repeated;
        int row = start / side, column = start % side;
        UNROLL for (int p = 0; p < COUNT; p++) {
            y[p] = row, x[p] = column;
            if (++column == side) column = 0, row++;
        }
        body(start, y, x, repeated);
    }
}

// The sums of one tile over all taps.
template <int IN, int COUNT, int VECTORS, bool RUN>
INLINE void tile_sums(Vector* sums, const Stored* const* pixels, const Tap* taps, int count) {
    UNROLL for (int k = 0; k < COUNT * VECTORS; k++) sums[k] = Vector{};
    int tap = 0;
    if constexpr (RUN)
        for (; tap + 3 <= count; tap += 3) multiply_run<IN, COUNT>(sums, pixels[0], taps + tap);
    for (; tap < count; tap++) multiply<IN, COUNT, VECTORS>(sums, pixels, taps[tap]);
}

template <int IN, int OUT, int COUNT, bool RUN>
static void convolve_in_tiles(const Conv& conv, const Stored* input, Stored* z, double* sums,
                              Ahead& ahead) {
    constexpr int VECTORS = vectors_for(OUT), WIDTH = VECTORS * LANES;
    const auto step = row_step(conv.in_side(), IN);
    const int radius = conv.kernel / 2;
    input += first_pixel(conv.in_side(), IN);
    ahead.plan(tiles_of<COUNT>(conv.side) * (OUT / WIDTH));
    for (int block = 0; block < OUT; block += WIDTH) {
        const Stored* weights = conv.forward.data() + size_t(block) * conv.taps() * IN;
        Tap taps[9];
        for (int tap = 0; tap < conv.taps(); tap++)
            taps[tap] = {(tap / conv.kernel - radius) * step + (tap % conv.kernel - radius) * IN,
                         weights + size_t(tap) * IN * WIDTH, 0};
        double* to[2 * VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            to[2 * v] = sums + block + v * LANES;
            to[2 * v + 1] = to[2 * v] + MOST_CHANNELS;
        }
        LaneSums<2 * VECTORS> totals(to);
        for_each_tile<COUNT, RUN>(conv.side, [&](int start, int* y, int* x, int repeated) {
            const Stored* pixels[COUNT];
            UNROLL for (int p = 0; p < COUNT; p++)
                pixels[p] = input + stride_of(IN, OUT) * (y[p] * step + x[p] * IN);
            Vector tile[COUNT * VECTORS], of_tile[2 * VECTORS]{};
            ahead.fetch();
            tile_sums<IN, COUNT, VECTORS, RUN>(tile, pixels, taps, conv.taps());
            UNROLL for (int v = 0; v < VECTORS; v++) {
                UNROLL for (int p = 0; p < COUNT; p++) {
                    Stored* to = z + size_t(start + p) * OUT + block + v * LANES;
                    Vector number = store(to, tile[p * VECTORS + v]);
                    if (p < repeated) continue;
                    of_tile[2 * v] += number;
                    of_tile[2 * v + 1] += number * number;
                }
            }
            totals.add(of_tile);
        });
    }
}

// Compute z, unpadded, from a padded input. Add the sums of its channels and of their squares to
// `sums`: at most PIXELS or RUN elements are added in single precision.
template <int IN, int OUT>
static void convolve(const Conv& conv, const Stored* input, Stored* z, double* sums,
                     Ahead ahead = {}) {
    if constexpr (vectors_for(OUT) == 1 && stride_of(IN, OUT) == 1)
        if (conv.kernel == 3 && conv.side % RUN == 0)
            return convolve_in_tiles<IN, OUT, RUN, true>(conv, input, z, sums, ahead);
    convolve_in_tiles<IN, OUT, PIXELS, false>(conv, input, z, sums, ahead);
}

// The rest of the work on the gradient of a convolution's input: add the shortcut's gradient, apply
// the mask of ReLU, and take the sums for the batch norm before ReLU. All maps are those of one
// image, have the input's size, and are unpadded except for `a`.
struct InputGradient {
    Stored* g;           // the result: the gradient of the ReLU's input
    const Stored* a;     // padded: the ReLU's output
    // The gradient of the block's output, if its shortcut has no weights. Before a convolution of
    // stride 2, it has half the side and twice the channels (option A).
    const Stored* skip;
    const Stored* z;     // the input of the batch norm
    const Stored* projected;  // the input of the shortcut's batch norm, or null
    const float *mean, *projected_mean;
    double* sums;  // [3][MOST_CHANNELS]: of g, g (z - mean), g (projected - its mean)
};

// The sums of one tile in one vector of channels.
struct ChannelSums {
    static constexpr int COUNT = 3;
    const InputGradient to;  // a copy, which no store can change
    const int channel;
    const Vector mean = load_fp32(to.mean + channel);
    Vector sums[COUNT]{};  // as in `to`

    INLINE_MEMBER ChannelSums(const InputGradient& to, int channel) : to(to), channel(channel) {}

    // `place` is the element in the unpadded maps, `padded` in `a`, and `skip` the element that is
    // added, or null.
    INLINE_MEMBER void finish(Vector number, size_t place, size_t padded, const Stored* skip,
                              bool counts) {
        if (skip) number += load(skip);
        number = store_where_positive(to.g + place, number, to.a + padded);
        if (!counts) return;
        sums[0] += number;
        sums[1] += number * (load(to.z + place) - mean);
        if (to.projected)
            sums[2] +=
                number * (load(to.projected + place) - load_fp32(to.projected_mean + channel));
    }

    // For a map whose shortcut is not halved.
    INLINE_MEMBER void finish(Vector number, size_t place, size_t padded) {
        finish(number, place, padded, to.skip ? to.skip + place : nullptr, true);
    }

    // Where the sums belong; null if they are not needed.
    INLINE_MEMBER double* total(int k) const {
        return k < 2 || to.projected ? to.sums + k * MOST_CHANNELS + channel : nullptr;
    }

    INLINE_MEMBER void add() const {
        for (int k = 0; k < COUNT; k++)
            if (total(k)) add_lanes(total(k), sums[k]);
    }
};

// One class of pixels (SCALE y + dy, SCALE x + dx) of a convolution's input.
template <int IN, int OUT, int COUNT, bool RUN, int SCALE>
static void gradient_in_tiles(const Conv& conv, const Stored* dz, const Tap* taps, int count,
                              int dy, int dx, const InputGradient& to, Ahead& ahead) {
    constexpr int VECTORS = vectors_for(IN), WIDTH = VECTORS * LANES;
    const int side = conv.in_side();
    const auto step = row_step(conv.side, OUT);
    dz += first_pixel(conv.side, OUT);
    // a halved shortcut begins at the first class of pixels
    const Stored* const skip = dy == 0 && dx == 0 ? to.skip : nullptr;
    ahead.plan(tiles_of<COUNT>(conv.side) * (IN / WIDTH) * SCALE * SCALE);
    for (int block = 0; block < IN; block += WIDTH) {
        Tap here[10];
        for (int tap = 0; tap < count; tap++) here[tap] = taps[tap].at_block(block * OUT);
        constexpr int SUMS = ChannelSums::COUNT;
        double* totals_of[VECTORS * SUMS];
        for (int k = 0; k < VECTORS * SUMS; k++)
            totals_of[k] = ChannelSums(to, block + k / SUMS * LANES).total(k % SUMS);
        LaneSums<VECTORS * SUMS> totals(totals_of);
        for_each_tile<COUNT, RUN>(conv.side, [&](int start, int* y, int* x, int repeated) {
            const Stored* pixels[COUNT];
            UNROLL for (int p = 0; p < COUNT; p++) pixels[p] = dz + y[p] * step + x[p] * OUT;
            Vector tile[COUNT * VECTORS], of_tile[VECTORS * SUMS];
            ahead.fetch();
            tile_sums<OUT, COUNT, VECTORS, RUN>(tile, pixels, here, count);
            UNROLL for (int v = 0; v < VECTORS; v++) {
                const int channel = block + v * LANES;
                ChannelSums sums(to, channel);
                UNROLL for (int p = 0; p < COUNT; p++) {
                    const int row = SCALE * y[p] + dy, column = SCALE * x[p] + dx;
                    const size_t pixel = SCALE == 1 ? start + p : size_t(row) * side + column;
                    const size_t padded = size_t(row + 1) * (side + 2) + column + 1;
                    const size_t place_in_skip = size_t(start + p) * SCALE * IN + channel;
                    sums.finish(tile[p * VECTORS + v], pixel * IN + channel, padded * IN + channel,
                                skip ? skip + place_in_skip : nullptr, p >= repeated);
                }
                UNROLL for (int k = 0; k < SUMS; k++) of_tile[v * SUMS + k] = sums.sums[k];
            }
            totals.add(of_tile);
        });
    }
}

// The taps that lead from a pixel of the input to `dz`, for stride 1: those of the kernel, rotated
// by 180 degrees, each row from left to right.
template <int IN, int OUT>
static void input_gradient_of_stride_1(const Conv& conv, const Stored* dz, Tap* taps, int count,
                                       const InputGradient& to, Ahead& ahead) {
    const auto step = row_step(conv.side, OUT);
    for (int tap = 0; tap < 9; tap++)
        taps[tap] = conv.backward_tap(8 - tap, (tap / 3 - 1) * step + (tap % 3 - 1) * OUT);
    if constexpr (vectors_for(IN) == 1)
        if (conv.side % RUN == 0)
            return gradient_in_tiles<IN, OUT, RUN, true, 1>(conv, dz, taps, count, 0, 0, to, ahead);
    gradient_in_tiles<IN, OUT, PIXELS, false, 1>(conv, dz, taps, count, 0, 0, to, ahead);
}

// For stride 2, the even and odd rows and columns of the input meet different taps: an even one the
// middle of the kernel, an odd one both ends.
template <int IN, int OUT>
static void input_gradient_of_stride_2(const Conv& conv, const Stored* dz, Tap projection,
                                       const InputGradient& to, Ahead& ahead) {
    const auto step = row_step(conv.side, OUT);
    for (int dy = 0; dy < 2; dy++)
        for (int dx = 0; dx < 2; dx++) {
            Tap taps[10];
            int count = 0;
            for (int kh = 1 - dy; kh < 3; kh += 2)
                for (int kw = 1 - dx; kw < 3; kw += 2)
                    taps[count++] = conv.backward_tap(
                        3 * kh + kw, (dy && kh == 0) * step + (dx && kw == 0) * OUT);
            if (dy == 0 && dx == 0 && projection.weights) taps[count++] = projection;
            gradient_in_tiles<IN, OUT, PIXELS, false, 2>(conv, dz, taps, count, dy, dx, to,
                                                           ahead);
        }
}

// Compute the gradient of a 3x3 convolution's input from the padded `dz`. With a projection beside
// the convolution, `projected_dz` has the layout of `dz`, and its 1x1 kernel is one tap more.
template <int IN, int OUT>
static void input_gradient(const Conv& conv, const Stored* dz, const Conv* projection,
                           const Stored* projected_dz, const InputGradient& to,
                           Ahead ahead = {}) {
    Tap extra{};
    if (projection) extra = projection->backward_tap(0, projected_dz - dz);
    if constexpr (stride_of(IN, OUT) == 2) {
        input_gradient_of_stride_2<IN, OUT>(conv, dz, extra, to, ahead);
    } else {
        Tap taps[10];
        taps[9] = extra;
        input_gradient_of_stride_1<IN, OUT>(conv, dz, taps, projection ? 10 : 9, to, ahead);
    }
}
