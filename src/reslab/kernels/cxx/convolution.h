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
    const float* weights_now;           // of the current pass, as Python has them
    Norm norm;
    std::vector<Stored> forward, backward;  // the weights as packed for either direction

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

// The number of elements from one row of a padded map to the next, and to its first real pixel.
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
// ends with the map; its first `repeated` pixels belong to the tile before it.
template <int COUNT, class Body>
INLINE void for_each_tile(int side, Body body) {
    const int total = side * side;
    int y[COUNT], x[COUNT];
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

// The sums of one tile over all taps. In a RUN, the pixels are neighbours in a row.
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
        for_each_tile<COUNT>(conv.side, [&](int start, int* y, int* x, int repeated) {
            const Stored* pixels[COUNT];
            UNROLL for (int p = 0; p < COUNT; p++)
                pixels[p] = input + conv.stride * (y[p] * step + x[p] * IN);
            Vector tile[COUNT * VECTORS];
            ahead.fetch();
            tile_sums<IN, COUNT, VECTORS, RUN>(tile, pixels, taps, conv.taps());
            UNROLL for (int v = 0; v < VECTORS; v++) {
                Vector sum{}, squares{};
                UNROLL for (int p = 0; p < COUNT; p++) {
                    Stored* to = z + size_t(start + p) * OUT + block + v * LANES;
                    Vector number = store(to, tile[p * VECTORS + v]);
                    if (p < repeated) continue;
                    sum += number;
                    squares += number * number;
                }
                add_lanes(sums + block + v * LANES, sum);
                add_lanes(sums + MOST_CHANNELS + block + v * LANES, squares);
            }
        });
    }
}

// Compute z, unpadded, from a padded input. Add the sums of its channels and of their squares to
// `sums`: at most PIXELS or RUN numbers are added in single precision.
template <int IN, int OUT>
static void convolve(const Conv& conv, const Stored* input, Stored* z, double* sums,
                     Ahead ahead = {}) {
    if constexpr (vectors_for(OUT) == 1)
        if (conv.stride == 1 && conv.kernel == 3 && conv.side % RUN == 0)
            return convolve_in_tiles<IN, OUT, RUN, true>(conv, input, z, sums, ahead);
    convolve_in_tiles<IN, OUT, PIXELS, false>(conv, input, z, sums, ahead);
}

// What becomes of the gradient of a convolution's input: the shortcut's gradient is added, ReLU's
// mask is applied, and the sums for the batch norm before that ReLU are taken. All maps are of one
// image, of the input's size, and unpadded but `a`.
struct InputGradient {
    Stored* g;           // the result: the gradient of the ReLU's input
    const Stored* a;     // padded: the ReLU's output
    const Stored* skip;  // the gradient of the block's output, if its shortcut has no weights
    int halved;          // 1 if that output has half the side, twice the channels (option A)
    const Stored* z;     // the input of the batch norm
    const Stored* projected;  // the input of the shortcut's batch norm, or null
    const float *mean, *projected_mean;
    double* sums;  // [3][MOST_CHANNELS]: of g, g (z - mean), g (projected - its mean)
};

// The sums of one tile in one vector of channels.
struct ChannelSums {
    const InputGradient to;  // a copy, which no store can change
    const int channel;
    const Vector mean = load_fp32(to.mean + channel);
    Vector g{}, gz{}, gp{};

    INLINE_MEMBER ChannelSums(const InputGradient& to, int channel) : to(to), channel(channel) {}

    INLINE_MEMBER void finish(Vector number, int y, int x, int side, int channels, bool counts) {
        if (to.skip && to.halved && !(y % 2) && !(x % 2))
            number += load(to.skip + (size_t(y / 2) * (side / 2) + x / 2) * 2 * channels + channel);
        finish(number, (size_t(y) * side + x) * channels + channel,
               (size_t(y + 1) * (side + 2) + x + 1) * channels + channel, counts);
    }

    // `place` is that of the number in an unpadded map, `padded` that in `a`.
    INLINE_MEMBER void finish(Vector number, size_t place, size_t padded, bool counts) {
        if (to.skip && !to.halved) number += load(to.skip + place);
        number = load(to.a + padded) > Vector{} ? number : Vector{};
        number = store(to.g + place, number);
        if (!counts) return;
        g += number;
        gz += number * (load(to.z + place) - mean);
        if (to.projected)
            gp += number * (load(to.projected + place) - load_fp32(to.projected_mean + channel));
    }

    INLINE_MEMBER void add() const {
        add_lanes(to.sums + channel, g);
        add_lanes(to.sums + MOST_CHANNELS + channel, gz);
        if (to.projected) add_lanes(to.sums + 2 * MOST_CHANNELS + channel, gp);
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
    ahead.plan(tiles_of<COUNT>(conv.side) * (IN / WIDTH) * SCALE * SCALE);
    for (int block = 0; block < IN; block += WIDTH) {
        Tap here[10];
        for (int tap = 0; tap < count; tap++) here[tap] = taps[tap].at_block(block * OUT);
        for_each_tile<COUNT>(conv.side, [&](int, int* y, int* x, int repeated) {
            const Stored* pixels[COUNT];
            UNROLL for (int p = 0; p < COUNT; p++) pixels[p] = dz + y[p] * step + x[p] * OUT;
            Vector tile[COUNT * VECTORS];
            ahead.fetch();
            tile_sums<OUT, COUNT, VECTORS, RUN>(tile, pixels, here, count);
            UNROLL for (int v = 0; v < VECTORS; v++) {
                const int channel = block + v * LANES;
                ChannelSums sums(to, channel);
                UNROLL for (int p = 0; p < COUNT; p++) {
                    const int row = SCALE * y[p] + dy, column = SCALE * x[p] + dx;
                    sums.finish(tile[p * VECTORS + v], row, column, side, IN, p >= repeated);
                }
                sums.add();
            }
        });
    }
}

// The taps that lead from a pixel of the input to `dz`, for stride 1: those of the kernel, turned
// by half a turn, each row from left to right.
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
    if (conv.stride == 2) return input_gradient_of_stride_2<IN, OUT>(conv, dz, extra, to, ahead);
    Tap taps[10];
    taps[9] = extra;
    input_gradient_of_stride_1<IN, OUT>(conv, dz, taps, projection ? 10 : 9, to, ahead);
}
