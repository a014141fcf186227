// A convolution of one image: forward, the gradient of its input, and the gradient of its weights.
#pragma once

#include <algorithm>
#include <vector>

#include "batchnorm.h"
#include "tiles.h"

// A convolution without bias, padded to keep the size, followed by batch norm. The image that the
// net sees has a fourth channel of zeros, so that `in` is a multiple of GROUP and of the tile.
struct Conv {
    int in, out, kernel, stride, side;  // side: of the output
    Norm norm;
    std::vector<Stored> forward, backward;  // the weights as packed for either direction
    Stored* z;                              // [image][side][side][out]

    int real_in() const { return in == 4 ? 3 : in; }
    int taps() const { return kernel * kernel; }
    size_t weights() const { return size_t(in) * taps() * out; }
    size_t pixels() const { return size_t(side) * side; }
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

// Pack the weights, [out][kernel][kernel][real_in()], for the forward tiles, and transposed for those of the gradient of the input.
static void pack(Conv& conv, const float* weights) {
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
        const size_t place = (size_t(y) * side + x) * channels + channel;
        const size_t padded = (size_t(y + 1) * (side + 2) + x + 1) * channels + channel;
        if (to.skip && !to.halved) number += load(to.skip + place);
        if (to.skip && to.halved && !(y % 2) && !(x % 2))
            number += load(to.skip + (size_t(y / 2) * (side / 2) + x / 2) * 2 * channels + channel);
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

#if !defined(RESLAB_BF16)
// Rows are read where they are.
INLINE const Stored* rows(const Stored* first, const Stored*, int, Stored*) { return first; }
#else
// Interleave two rows, so that each pair of neighbouring numbers is of one column.
INLINE const Stored* rows(const Stored* first, const Stored* second, int length, Stored* scratch) {
    for (int k = 0; k < length; k += 16) {
        __m512i a = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(first + k)));
        __m512i b = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(second + k)));
        _mm512_storeu_si512(scratch + 2 * k, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
    }
    return scratch;
}
#endif

// Input channels whose gradient is in registers at a time.
constexpr int gradient_channels(int in, int kernel) {
    return std::min(in, REGISTERS == 32 || kernel == 1 ? 8 : 4);
}
constexpr int GRADIENT_ROWS = 4;  // output rows, or pairs of rows, that stay in the L1 cache

// Add the weight gradient of one image to `total`, [kernel row][block of input channels][block of
// LANES output channels][channel of the block][kernel column][LANES]. Both maps are padded.
template <int IN, int OUT, int STRIDE, int KERNEL>
static void weight_gradient(int side, const Stored* x, const Stored* dz, float* total,
                            Stored* scratch, Ahead ahead = {}) {
    constexpr int CHANNELS = gradient_channels(IN, KERNEL), SUMS = CHANNELS * KERNEL;
    const auto in_step = row_step(side * STRIDE, IN), step = row_step(side, OUT);
    const int last_row = side * STRIDE + 1, groups = (side + GROUP - 1) / GROUP;
    ahead.plan(groups * KERNEL * (IN / CHANNELS) * (OUT / LANES));
    // where a row of the input begins, see `gradient_row`
    const int begin = STRIDE == 2 && KERNEL == 3 ? 0 : IN * GROUP;
    Stored* const x_scratch = scratch + GRADIENT_ROWS * GROUP * (step + LANES);
    for (int block = 0; block < groups; block += GRADIENT_ROWS) {
        const int count = std::min(GRADIENT_ROWS, groups - block);
        const Stored *dz_rows[GRADIENT_ROWS], *x_rows[GRADIENT_ROWS];
        for (int i = 0; i < count; i++) {
            const Stored* row = dz + (GROUP * (block + i) + 1) * step;
            dz_rows[i] = rows(row, row + step, step, scratch + i * GROUP * (step + LANES));
        }
        for (int kh = 0; kh < KERNEL; kh++) {
            for (int i = 0; i < count; i++) {
                const int row = STRIDE * GROUP * (block + i) + (KERNEL == 3 ? kh : 1);
                const int second = std::min(row + STRIDE, last_row);  // it may meet no dz
                x_rows[i] = rows(x + row * in_step, x + second * in_step, in_step,
                                 x_scratch + i * GROUP * (in_step + LANES));
            }
            float* part = total + size_t(kh) * IN * KERNEL * OUT;
            for (int c = 0; c < IN; c += CHANNELS)
                for (int o = 0; o < OUT; o += LANES, part += SUMS * LANES) {
                    // from zero, so that few numbers are added in single precision one by one
                    Vector sums[SUMS];
                    UNROLL for (int k = 0; k < SUMS; k++) sums[k] = Vector{};
                    for (int i = 0; i < count; i++) {
                        ahead.fetch();
                        gradient_row<IN, OUT, CHANNELS, STRIDE, KERNEL>(
                            sums, x_rows[i] + begin + c * GROUP, dz_rows[i] + o * GROUP, side);
                    }
                    UNROLL for (int k = 0; k < SUMS; k++)
                        store_fp32(part + k * LANES, load_fp32(part + k * LANES) + sums[k]);
                }
        }
    }
}

// Add the weight gradients of the chunks in order, for one kernel row and one block of input
// channels, and write them in the layout of the weights.
static void reduce_weight_gradient(const Conv& conv, const float* chunks, int count, int row,
                                   int first_channel, float* gradient) {
    const int channels = gradient_channels(conv.in, conv.kernel), kernel = conv.kernel;
    const size_t block = size_t(channels) * kernel * LANES;
    const int number = row * (conv.in / channels) + first_channel / channels;
    const float* from = chunks + number * (conv.out / LANES) * block;
    for (int o = 0; o < conv.out; o += LANES)
        for (int c = first_channel; c < first_channel + channels; c++)
            for (int column = 0; column < kernel; column++, from += LANES) {
                Vector sum{};
                for (int chunk = 0; chunk < count; chunk++)
                    sum += load_fp32(from + chunk * conv.weights());
                if (c >= conv.real_in()) continue;
                float* to = gradient + (row * kernel + column) * conv.real_in() + c;
                for (int lane = 0; lane < LANES; lane++)
                    to[size_t(o + lane) * conv.taps() * conv.real_in()] = sum[lane];
            }
}
