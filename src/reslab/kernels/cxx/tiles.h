// Convolution tiles: the sums of a few pixels times a few vectors of output channels, in registers.
//
// Maps are NHWC. Inputs have a border of one zero pixel, so no tile asks where it is. Weights are
// packed in the order in which a tile reads them: [block of VECTORS * LANES output channels][tap]
// [input channel / GROUP][output channel of the block][GROUP].
#pragma once

#include <cstddef>

#include "arithmetic.h"

// As many sums as fit beside the weights: both shapes reach the peak of two multiply-adds a cycle,
// which take 4 cycles each, with fewer than two loads a cycle.
constexpr int PIXELS = REGISTERS == 32 ? 8 : 6;
constexpr int RUN = 16;  // pixels of a tile with a single vector, see `multiply_run`

constexpr int vectors_for(int channels) { return channels >= 2 * LANES ? 2 : 1; }

// One of the weights of a kernel: where its input pixel is, and its packed weights.
struct Tap {
    std::ptrdiff_t offset;
    const Stored* weights;
    int taps;  // of its kernel

    Tap at_block(std::ptrdiff_t weights_per_tap) const {
        return {offset, weights + weights_per_tap * taps, taps};
    }
};

// Add one tap for pixels anywhere in the map.
template <int IN, int COUNT, int VECTORS>
INLINE void multiply(Vector* sums, const Stored* const* pixels, Tap tap) {
    const Stored* weights = tap.weights;
    for (int c = 0; c < IN; c += GROUP, weights += VECTORS * LANES * GROUP) {
        Operand factors[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++)
            factors[v] = load_operand(weights + v * LANES * GROUP);
        UNROLL for (int p = 0; p < COUNT; p++) {
            Operand pixel = broadcast(pixels[p] + tap.offset + c);
            UNROLL for (int v = 0; v < VECTORS; v++)
                sums[p * VECTORS + v] = multiply_add(sums[p * VECTORS + v], pixel, factors[v]);
        }
    }
}

// Add the three taps of a kernel's row for COUNT neighbouring pixels, `taps` from left to right.
// With a single vector of output channels, each pixel would be loaded for one product only; here it
// is used by all three taps.
template <int IN, int COUNT>
INLINE void multiply_run(Vector* sums, const Stored* pixel, const Tap* taps) {
    const Stored* input = pixel + taps[0].offset;
    for (int c = 0; c < IN; c += GROUP) {
        Operand left = load_operand(taps[0].weights + c * LANES);
        Operand middle = load_operand(taps[1].weights + c * LANES);
        Operand right = load_operand(taps[2].weights + c * LANES);
        UNROLL for (int p = 0; p < COUNT + 2; p++) {
            Operand x = broadcast(input + p * IN + c);
            if (p < COUNT) sums[p] = multiply_add(sums[p], x, left);
            if (p >= 1 && p <= COUNT) sums[p - 1] = multiply_add(sums[p - 1], x, middle);
            if (p >= 2) sums[p - 2] = multiply_add(sums[p - 2], x, right);
        }
    }
}

// The weight gradient of CHANNELS input channels times one vector of output channels, added up over
// a row of output pixels (in bf16: over a pair of rows, whose elements are interleaved). `x` points
// to the first real pixel of the input row for stride 1, one pixel earlier for stride 2; `dz`
// points to the border pixel before the row. Pixels are IN or OUT times GROUP elements apart.
template <int IN, int OUT, int CHANNELS, int STRIDE, int KERNEL>
INLINE void gradient_row(Vector* sums, const Stored* x, const Stored* dz, int width) {
    constexpr int STEP = OUT * GROUP, IN_STEP = IN * GROUP;
    for (int w = 0; w < width; w++, x += STRIDE * IN_STEP, dz += STEP) {
        if constexpr (KERNEL == 1) {
            Operand here = load_operand(dz + STEP);
            UNROLL for (int c = 0; c < CHANNELS; c++)
                sums[c] = multiply_add(sums[c], broadcast(x + c * GROUP), here);
        } else if constexpr (STRIDE == 1) {
            // a pixel serves three output pixels: the fewest loads
            Operand before = load_operand(dz), here = load_operand(dz + STEP);
            Operand after = load_operand(dz + 2 * STEP);
            UNROLL for (int c = 0; c < CHANNELS; c++) {
                Operand pixel = broadcast(x + c * GROUP);
                sums[3 * c] = multiply_add(sums[3 * c], pixel, after);
                sums[3 * c + 1] = multiply_add(sums[3 * c + 1], pixel, here);
                sums[3 * c + 2] = multiply_add(sums[3 * c + 2], pixel, before);
            }
        } else {
            Operand here = load_operand(dz + STEP);
            UNROLL for (int c = 0; c < CHANNELS; c++)
                UNROLL for (int tap = 0; tap < 3; tap++) {
                    Operand pixel = broadcast(x + tap * IN_STEP + c * GROUP);
                    sums[3 * c + tap] = multiply_add(sums[3 * c + tap], pixel, here);
                }
        }
    }
}
