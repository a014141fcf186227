// The gradient of a convolution's weights.
#pragma once

#include "convolution.h"

#if !defined(RESLAB_BF16)
// Rows are read where they are.
INLINE const Stored* rows(const Stored* first, const Stored*, int, Stored*) { return first; }
#else
// Interleave two rows, so that each pair of neighbouring elements is of one column.
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
                    // from zero, so that few elements are added in single precision one by one
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
// channels, and write them in the layout of the weights, or add them to what is there.
static void reduce_weight_gradient(const Conv& conv, const float* chunks, int count, int row,
                                   int first_channel, float* gradient, bool add) {
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
                const size_t step = size_t(conv.taps()) * conv.real_in();
                for (int lane = 0; lane < LANES; lane++)
                    write_or_add(to + (o + lane) * step, sum[lane], add);
            }
}
