// A step of SGD with momentum, in the arithmetic of torch's fused kernel, to the last bit.
#pragma once

#include "arithmetic.h"

// One tensor; `count` is a multiple of LANES, for torch rounds the rest differently.
struct SgdTensor {
    float* weight;
    const float* gradient;
    float* velocity;
    int64_t count;
    float decay, rate;
};

// Prevent the compiler from fusing a product with the addition that follows.
INLINE Vector rounded(Vector product) {
    asm("" : "+v"(product));
    return product;
}

static void sgd_step(const SgdTensor& tensor, float momentum) {
    for (int64_t k = 0; k < tensor.count; k += LANES) {
        Vector weight = load_fp32(tensor.weight + k), slope = load_fp32(tensor.gradient + k);
        if (tensor.decay != 0) slope = weight * tensor.decay + slope;
        const Vector velocity = rounded(load_fp32(tensor.velocity + k) * momentum) + slope;
        store_fp32(tensor.velocity + k, velocity);
        store_fp32(tensor.weight + k, velocity * -tensor.rate + weight);
    }
}
