// Winograd's convolution F(4x4, 3x3): a quarter of the multiplications of 3x3 layers with stride 1.
//
// A convolution of small tiles is a product of polynomials (Lavin and Gray, arXiv 1509.09308). Both
// factors are evaluated at the same points, multiplied there, and the product is read off its
// values. A tile of 4x4 outputs has a window of 6x6 inputs and 6x6 points. At each point, the
// values of all tiles, [tiles][in], are multiplied by those of the weights, [in][out]. The weight
// gradient is read off the products of the windows and the output gradient's tiles, summed over
// tiles.
//
// The points are 0, +-sqrt(1/2), +-sqrt(2) and infinity. With those, a layer in fp32 is about twice
// as far from double precision as a direct sum; with the usual 0, +-1, +-2 it would be five times.
#pragma once

#include "weight_gradient.h"

constexpr int TILE = 4, WINDOW = 6, POINTS = WINDOW * WINDOW;

// All arithmetic is in fp32, even if maps are in bf16: it is faster than direct products in bf16,
// which save half of the multiply-adds instead of three quarters, and does not round the weights.
static bool fits_winograd(const Conv& conv) {
    return conv.kernel == 3 && conv.stride == 1 && conv.in == conv.out && conv.side % TILE == 0;
}

constexpr float NEAR = 0.70710678f, FAR = 1.41421356f;  // the points, without their signs

// Transforms of one column or row. The values of windows are those of polynomials times a factor
// per point, by which the values of the weights are divided.
struct WindowValues {
    static constexpr int FROM = WINDOW, TO = WINDOW;
    INLINE void apply(const Vector* x, Vector* to) {
        const Vector even = x[4] - 2.f * x[2], odd = NEAR * x[3] - FAR * x[1];
        const Vector far_even = x[4] - 0.5f * x[2], far_odd = FAR * x[3] - NEAR * x[1];
        to[0] = x[0] - 2.5f * x[2] + x[4];
        to[1] = even + odd, to[2] = even - odd;
        to[3] = far_even + far_odd, to[4] = far_even - far_odd;
        to[5] = x[1] - 2.5f * x[3] + x[5];
    }
};

struct WeightValues {
    static constexpr int FROM = 3, TO = WINDOW;
    INLINE void apply(const Vector* w, Vector* to) {
        const Vector even = (w[0] + 0.5f * w[2]) / -1.5f, odd = w[1] * (NEAR / -1.5f);
        const Vector far_even = (w[0] + 2.f * w[2]) / 6.f, far_odd = w[1] * (FAR / 6.f);
        to[0] = w[0];
        to[1] = even + odd, to[2] = even - odd;
        to[3] = far_even + far_odd, to[4] = far_even - far_odd;
        to[5] = w[2];
    }
};

struct TileOfValues {
    static constexpr int FROM = WINDOW, TO = TILE;
    INLINE void apply(const Vector* m, Vector* to) {
        const Vector even = m[1] + m[2], odd = NEAR * (m[1] - m[2]);
        const Vector far_even = m[3] + m[4], far_odd = FAR * (m[3] - m[4]);
        to[0] = m[0] + even + far_even;
        to[1] = odd + far_odd;
        to[2] = 0.5f * even + 2.f * far_even;
        to[3] = 0.5f * odd + 2.f * far_odd + m[5];
    }
};

// The transpose of `TileOfValues`.
struct TileValues {
    static constexpr int FROM = TILE, TO = WINDOW;
    INLINE void apply(const Vector* y, Vector* to) {
        const Vector even = y[0] + 0.5f * y[2], odd = NEAR * y[1] + (NEAR / 2) * y[3];
        const Vector far_even = y[0] + 2.f * y[2], far_odd = FAR * y[1] + (2 * FAR) * y[3];
        to[0] = y[0];
        to[1] = even + odd, to[2] = even - odd;
        to[3] = far_even + far_odd, to[4] = far_even - far_odd;
        to[5] = y[3];
    }
};

// The transpose of `WeightValues`.
struct WeightsOfValues {
    static constexpr int FROM = WINDOW, TO = 3;
    INLINE void apply(const Vector* s, Vector* to) {
        const Vector even = (s[1] + s[2]) / -1.5f, far_even = (s[3] + s[4]) / 6.f;
        to[0] = s[0] + even + far_even;
        to[1] = (s[1] - s[2]) * (NEAR / -1.5f) + (s[3] - s[4]) * (FAR / 6.f);
        to[2] = 0.5f * even + 2.f * far_even + s[5];
    }
};

// Apply a transform to the columns and then to the rows of a square: load(y, x) gives its elements,
// and store(y, x, element) takes those of the result.
template <class Transform, class Load, class Store>
INLINE void transform(Load load, Store store) {
    constexpr int FROM = Transform::FROM, TO = Transform::TO;
    Vector rows[TO][FROM];
    UNROLL for (int x = 0; x < FROM; x++) {
        Vector column[FROM], values[TO];
        UNROLL for (int y = 0; y < FROM; y++) column[y] = load(y, x);
        Transform::apply(column, values);
        UNROLL for (int y = 0; y < TO; y++) rows[y][x] = values[y];
    }
    UNROLL for (int y = 0; y < TO; y++) {
        Vector values[TO];
        Transform::apply(rows[y], values);
        UNROLL for (int x = 0; x < TO; x++) store(y, x, values[x]);
    }
}

// Values lie in blocks of tiles, [block][point][tile of the block][channel], so that all distances
// in a tile are constants. Without the gap after each point, points could be a multiple of 4096
// bytes apart, and share one set of the L1 cache.
constexpr int BLOCK = 16, GAP = 16;

template <int CHANNELS>
struct Values {
    static constexpr int POINT = BLOCK * CHANNELS + GAP;
    float* const begin;

    INLINE_MEMBER float* tile(int number) const {
        return begin + size_t(number / BLOCK) * POINTS * POINT + number % BLOCK * CHANNELS;
    }
};
constexpr size_t values_size(int tiles, int channels) {
    return size_t((tiles + BLOCK - 1) / BLOCK) * POINTS * (BLOCK * channels + GAP);
}

// Evaluate all windows (tiles) of one padded map, from tile `number` of the values on.
template <class Transform, int CHANNELS>
static void evaluate(const Stored* map, int side, Values<CHANNELS> values, int number,
                     Ahead ahead = {}) {
    constexpr int BORDER = Transform::FROM == WINDOW ? 0 : 1;
    const auto row = row_step(side, CHANNELS);
    map += BORDER * (row + CHANNELS);
    ahead.plan(side / TILE * (side / TILE) * (CHANNELS / LANES));
    for (int y = 0; y < side; y += TILE)
        for (int x = 0; x < side; x += TILE, number++)
            for (int c = 0; c < CHANNELS; c += LANES) {
                const Stored* rows[Transform::FROM];
                for (int i = 0; i < Transform::FROM; i++)
                    rows[i] = map + (y + i) * row + x * CHANNELS + c;
                float* to = values.tile(number) + c;
                ahead.fetch();
                transform<Transform>(
                    [&](int i, int j) { return load(rows[i] + j * CHANNELS); },
                    [&](int i, int j, Vector value) {
                        store_fp32(to + (WINDOW * i + j) * values.POINT, value);
                    });
            }
}

// Compute the tiles of one map from the values. `taker_of(y, x, channel)` returns an object for the
// tile at a pixel: take(vector, i, j) is called for its 16 pixels, and finish() after them.
template <int CHANNELS, class TakerOf>
static void interpolate(Values<CHANNELS> values, int number, int side, TakerOf taker_of) {
    for (int y = 0; y < side; y += TILE)
        for (int x = 0; x < side; x += TILE, number++)
            for (int c = 0; c < CHANNELS; c += LANES) {
                const float* from = values.tile(number) + c;
                auto taker = taker_of(y, x, c);
                transform<TileOfValues>(
                    [&](int i, int j) { return load_fp32(from + (WINDOW * i + j) * values.POINT); },
                    [&](int i, int j, Vector pixel) { taker.take(pixel, i, j); });
                taker.finish();
            }
}

// From one point to the next, of weights.
constexpr size_t weights_step(int channels) { return channels * channels + GAP; }

// Tiles, or input channels, whose sums with `vectors_for` vectors of channels are in registers:
// eight sums are enough to keep two multiply-adds of 4 cycles busy.
template <int CHANNELS>
constexpr int rows_of_sums() {
    return (REGISTERS == 32 ? 16 : 8) / vectors_for(CHANNELS);
}

// Multiply the values of tiles by those of the weights. The number of tiles is rounded up to a
// multiple of `rows_of_sums`; what the added ones hold does not matter.
template <int CHANNELS>
static void multiply_values(Values<CHANNELS> values, const float* weights, int tiles,
                            Values<CHANNELS> products) {
    constexpr int VECTORS = vectors_for(CHANNELS), WIDTH = VECTORS * LANES;
    constexpr int ROWS = rows_of_sums<CHANNELS>();
    for (int point = 0; point < POINTS; point++, weights += weights_step(CHANNELS))
        for (int block = 0; block < CHANNELS; block += WIDTH)
            for (int tile = 0; tile < tiles; tile += ROWS) {
                const float* from = values.tile(tile) + point * values.POINT;
                const float* factor = weights + block * CHANNELS;
                float* to = products.tile(tile) + point * values.POINT + block;
                Vector sums[ROWS * VECTORS]{};
                for (int c = 0; c < CHANNELS; c++, factor += WIDTH) {
                    Vector factors[VECTORS];
                    UNROLL for (int v = 0; v < VECTORS; v++)
                        factors[v] = load_fp32(factor + v * LANES);
                    UNROLL for (int r = 0; r < ROWS; r++)
                        UNROLL for (int v = 0; v < VECTORS; v++)
                            sums[r * VECTORS + v] += from[r * CHANNELS + c] * factors[v];
                }
                UNROLL for (int r = 0; r < ROWS; r++)
                    UNROLL for (int v = 0; v < VECTORS; v++)
                        store_fp32(to + r * CHANNELS + v * LANES, sums[r * VECTORS + v]);
            }
}

// Multiply the values of windows and of gradients, and sum over tiles: [point][in][out]. The sums
// are added to those that are there, or replace them.
template <int CHANNELS>
static void multiply_gradients(Values<CHANNELS> values, Values<CHANNELS> gradients, int tiles,
                               float* sums, bool adds) {
    constexpr int VECTORS = vectors_for(CHANNELS), WIDTH = VECTORS * LANES;
    constexpr int ROWS = rows_of_sums<CHANNELS>();
    for (int point = 0; point < POINTS; point++, sums += weights_step(CHANNELS))
        for (int c = 0; c < CHANNELS; c += ROWS)
            for (int block = 0; block < CHANNELS; block += WIDTH) {
                Vector tile_sums[ROWS * VECTORS]{};
                for (int first = 0; first < tiles; first += BLOCK) {
                    const float* x = values.tile(first) + point * values.POINT + c;
                    const float* dz = gradients.tile(first) + point * values.POINT + block;
                    const int count = std::min(BLOCK, tiles - first);
                    for (int tile = 0; tile < count; tile++, x += CHANNELS, dz += CHANNELS) {
                        Vector factors[VECTORS];
                        UNROLL for (int v = 0; v < VECTORS; v++)
                            factors[v] = load_fp32(dz + v * LANES);
                        UNROLL for (int r = 0; r < ROWS; r++)
                            UNROLL for (int v = 0; v < VECTORS; v++)
                                tile_sums[r * VECTORS + v] += x[r] * factors[v];
                    }
                }
                UNROLL for (int r = 0; r < ROWS; r++)
                    UNROLL for (int v = 0; v < VECTORS; v++) {
                        float* to = sums + (c + r) * CHANNELS + block + v * LANES;
                        Vector sum = tile_sums[r * VECTORS + v];
                        store_fp32(to, adds ? load_fp32(to) + sum : sum);
                    }
            }
}

// Evaluate the weights of one vector of output channels, from `first` on: [point][block of
// `vectors_for` vectors][input channel][output channel of the block]. For the gradient of the
// input, the kernel is rotated by 180 degrees, and its inputs and outputs change places.
template <int CHANNELS>
static void evaluate_weights(const float* weights, bool backward, int first, float* values) {
    constexpr int WIDTH = vectors_for(CHANNELS) * LANES;
    values += first / WIDTH * WIDTH * CHANNELS + first % WIDTH;
    for (int block = 0; block < CHANNELS; block += LANES) {
        float transposed[9][LANES][LANES];
        if (!backward)
            for (int tap = 0; tap < 9; tap++)
                for (int o = 0; o < LANES; o++) {
                    const float* from = weights + ((first + o) * 9 + tap) * CHANNELS + block;
                    for (int c = 0; c < LANES; c++) transposed[tap][c][o] = from[c];
                }
        for (int c = 0; c < LANES; c++)
            transform<WeightValues>(
                [&](int y, int x) {
                    const int tap = 3 * y + x;
                    return load_fp32(
                        backward ? weights + ((block + c) * 9 + 8 - tap) * CHANNELS + first
                                 : transposed[tap][c]);
                },
                [&](int y, int x, Vector value) {
                    const size_t point = (WINDOW * y + x) * weights_step(CHANNELS);
                    store_fp32(values + point + (block + c) * WIDTH, value);
                });
    }
}

// Write the weight gradient of the sums over tiles to `total`, in the layout of `weight_gradient`.
template <int CHANNELS>
static void interpolate_weights(const float* sums, float* total) {
    constexpr int FEW = gradient_channels(CHANNELS, 3);
    for (int c = 0; c < CHANNELS; c++)
        for (int o = 0; o < CHANNELS; o += LANES) {
            const int block = c / FEW * (CHANNELS / LANES) + o / LANES;
            float* to = total + (block * FEW + c % FEW) * 3 * LANES;
            transform<WeightsOfValues>(
                [&](int y, int x) {
                    const size_t point = (WINDOW * y + x) * weights_step(CHANNELS);
                    return load_fp32(sums + point + c * CHANNELS + o);
                },
                [&](int y, int x, Vector number) {
                    store_fp32(to + y * CHANNELS * CHANNELS * 3 + x * LANES, number);
                });
        }
}
