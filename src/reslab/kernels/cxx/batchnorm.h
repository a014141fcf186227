// Batch norm in training mode: statistics, forward map, and gradient, for at most 64 channels.
//
// The passes over maps belong to the convolutions before and after; this file has the work that is
// done once per channel, in double precision. The forward map subtracts the mean before it scales.
// The variance is E[z^2] - E[z]^2, which loses digits where the mean is much larger than the
// standard deviation.
#pragma once

#include <cmath>

#include "arithmetic.h"

constexpr int MOST_CHANNELS = 64;

// Move the running statistics of a channel, of which the variance is the unbiased one.
INLINE void move(float& running_mean, float& running_variance, double mean, double variance,
                 double count, double momentum) {
    running_mean += momentum * (mean - running_mean);
    running_variance += momentum * (variance * count / (count - 1) - running_variance);
}

struct Norm {
    // of the current forward pass: z -> (z - mean) scale + shift
    float mean[MOST_CHANNELS], scale[MOST_CHANNELS], shift[MOST_CHANNELS];
    double inverse[MOST_CHANNELS];  // 1 / standard deviation
    // of the backward pass: dz = scale g + slope (z - mean) + constant
    float slope[MOST_CHANNELS], constant[MOST_CHANNELS];

    // Set the forward map from the sums of a channel's values and of their squares over `count`
    // pixels, and move the running statistics.
    void set_forward(const double* sums, const double* squares, int channels, double count,
                     const float* gamma, const float* beta, float* running_mean,
                     float* running_variance, double momentum, double epsilon) {
        for (int c = 0; c < channels; c++) {
            double centre = sums[c] / count;
            double variance = squares[c] / count - centre * centre;
            if (variance < 0) variance = 0;  // fmax would hide NaN
            inverse[c] = 1 / std::sqrt(variance + epsilon);
            mean[c] = centre, scale[c] = gamma[c] * inverse[c], shift[c] = beta[c];
            move(running_mean[c], running_variance[c], centre, variance, count, momentum);
        }
    }

    // Set the backward map from the sums of g and g (z - mean), and write the gradients of gamma
    // and beta, or add them to what is there.
    void set_backward(const double* g, const double* gz, int channels, double count,
                      float* gamma_gradient, float* beta_gradient, bool add) {
        for (int c = 0; c < channels; c++) {
            write_or_add(gamma_gradient + c, gz[c] * inverse[c], add);
            write_or_add(beta_gradient + c, g[c], add);
            slope[c] = -scale[c] * inverse[c] * inverse[c] * gz[c] / count;
            constant[c] = -scale[c] * g[c] / count;
        }
    }
};

// A vector of channels of the two maps. `norm` has the arrays `mean`, `scale` and `shift`.
struct Forward {
    Vector mean, scale, shift;
    template <class AnyNorm>
    INLINE_MEMBER Forward(const AnyNorm& norm, int channel)
        : mean(load_fp32(norm.mean + channel)),
          scale(load_fp32(norm.scale + channel)),
          shift(load_fp32(norm.shift + channel)) {}
    INLINE_MEMBER Vector operator()(Vector z) const { return (z - mean) * scale + shift; }
};

struct Backward {
    Vector mean, scale, slope, constant;
    INLINE_MEMBER Backward(const Norm& norm, int channel)
        : mean(load_fp32(norm.mean + channel)),
          scale(load_fp32(norm.scale + channel)),
          slope(load_fp32(norm.slope + channel)),
          constant(load_fp32(norm.constant + channel)) {}
    INLINE_MEMBER Vector operator()(Vector g, Vector z) const {
        return scale * g + ((z - mean) * slope + constant);
    }
};
