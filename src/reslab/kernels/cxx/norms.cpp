// Batch norm, addition and ReLU as one operation, y = ReLU(batch norm(z) + residual), forward and
// backward, for maps of any shape.
//
// The convolutions around it are PyTorch's, so all tensors are whole maps in main memory, and the
// time is that of passes over them: two forward and two backward, one of each for the statistics.
// Passes go through memory in order, since the processor fetches nothing ahead of other patterns.
//
// A map is a matrix, [pixels of all images][channels]. Its rows are divided into chunks of a fixed
// size. Each chunk has sums of its own, added in the order of the chunks: the bits depend neither
// on the number of threads nor on their timing.
#include <cmath>
#include <vector>

#include "batchnorm.h"
#include "threads.h"

constexpr size_t RUN = 64;         // rows whose sums stay in fp32
constexpr size_t CHUNK = 1 << 17;  // elements

namespace {

// Where the gradient of ReLU finds the zeros of its output: if there is no residual, the output is
// computed again from z, which is read anyway.
enum Mask { UNMASKED, FROM_Z, FROM_Y };

// The numbers of each channel that a forward pass leaves for the backward pass.
struct Channels {
    float *mean, *scale, *shift;  // y = (z - mean) scale + shift
    float* inverse;               // 1 / standard deviation

    Channels(float* numbers, int count)
        : mean(numbers),
          scale(numbers + count),
          shift(numbers + 2 * count),
          inverse(numbers + 3 * count) {}
    void set(int c, double centre, double variance, double epsilon, float gamma, float beta) {
        const double inverted = 1 / std::sqrt(variance + epsilon);
        mean[c] = centre, inverse[c] = inverted, scale[c] = gamma * inverted, shift[c] = beta;
    }
};

// The rows of a map, and the threads that share them.
struct Rows {
    size_t count;
    int channels, threads;

    size_t per_chunk() const { return std::max<size_t>(CHUNK / channels / RUN, 1) * RUN; }
    int chunks() const { return (count + per_chunk() - 1) / per_chunk(); }

    // Call `work(first, end, chunk)` for all chunks. Each thread takes neighbouring ones, the last
    // first if `reversed`: they are what another pass has left in the caches.
    template <class Work>
    void for_each_chunk(bool reversed, Work work) const {
        in_parallel(threads, threads, [&](int thread) {
            const int begin = chunks() * thread / threads, end = chunks() * (thread + 1) / threads;
            for (int number = begin; number < end; number++) {
                const int chunk = reversed ? end - 1 - (number - begin) : number;
                const size_t first = chunk * per_chunk();
                work(first, std::min(count, first + per_chunk()), chunk);
            }
        });
    }

    // Write a map: `value(at, c)` returns the channels from c on, which are at `at`.
    template <class Value>
    void write(Stored* to, Value value) const {
        for_each_chunk(false, [&](size_t first, size_t end, int) {
            for (size_t at = first * channels; at < end * channels; at += channels)
                for (int c = 0; c < channels; c += LANES) store(to + at + c, value(at + c, c));
        });
    }

    // Return two sums for each channel over all rows, [2][channels]: `add(at, c, sum, other)` adds
    // the channels from c on, which are at `at`.
    template <class Add>
    std::vector<double> sums(Add add) const {
        const size_t width = 2 * channels;
        std::vector<double> all(chunks() * width);
        for_each_chunk(true, [&](size_t first, size_t end, int chunk) {
            std::vector<float> run(width);
            float* const sums = run.data();
            for (; first < end; first += RUN) {
                const size_t run_end = std::min(end, first + RUN) * channels;
                for (size_t at = first * channels; at < run_end; at += channels)
                    for (int c = 0; c < channels; c += LANES) {
                        Vector sum = load_fp32(sums + c), other = load_fp32(sums + channels + c);
                        add(at + c, c, sum, other);
                        store_fp32(sums + c, sum), store_fp32(sums + channels + c, other);
                    }
                for (size_t k = 0; k < width; k++) all[chunk * width + k] += run[k], run[k] = 0;
            }
        });
        for (size_t k = width; k < all.size(); k++) all[k % width] += all[k];
        all.resize(width);
        return all;
    }
};

// Set the map of batch norm from the statistics of z, and move the running ones if there are any.
// The sums are those of the differences to the first pixel: E[z^2] - E[z]^2 itself would lose
// digits where the mean is much larger than the standard deviation.
void measure(const Rows& rows, const Stored* z, const float* gamma, const float* beta,
             float* running_mean, float* running_variance, double momentum, double epsilon,
             Channels channels) {
    const int width = rows.channels;
    std::vector<float> pixel(width);
    for (int c = 0; c < width; c += LANES) store_fp32(&pixel[c], load(z + c));
    const float* const origin = pixel.data();
    const auto sums = rows.sums([=](size_t at, int c, Vector& sum, Vector& squares) {
        const Vector difference = load(z + at) - load_fp32(origin + c);
        sum += difference, squares += difference * difference;
    });
    const double count = rows.count;
    for (int c = 0; c < width; c++) {
        const double difference = sums[c] / count, mean = pixel[c] + difference;
        double variance = sums[width + c] / count - difference * difference;
        if (variance < 0) variance = 0;  // fmax would hide NaN
        channels.set(c, mean, variance, epsilon, gamma[c], beta[c]);
        if (running_mean)
            move(running_mean[c], running_variance[c], mean, variance, count, momentum);
    }
}

// Write y.
template <bool RELU, bool RESIDUAL>
void apply(const Rows& rows, const Stored* z, const Stored* residual, Channels channels,
           Stored* y) {
    rows.write(y, [=](size_t at, int c) {
        Vector number = Forward(channels, c)(load(z + at));
        if (RESIDUAL) number += load(residual + at);
        return RELU ? relu(number) : number;
    });
}

// Return the gradient before ReLU.
template <Mask MASK>
INLINE Vector masked(Vector g, Vector z, const Forward& map, const Stored* y) {
    if (MASK == UNMASKED) return g;
    const Vector output = MASK == FROM_Y ? load(y) : map(z);
    return output <= Vector{} ? Vector{} : g;
}

// Compute the gradients of z, gamma and beta from `dy`, and that of the residual if there is one.
template <Mask MASK>
void differentiate(const Rows& rows, const Stored* z, const Stored* y, const Stored* dy,
                   Channels channels, Stored* dz, Stored* dresidual, float* dgamma, float* dbeta) {
    const int width = rows.channels;
    const auto sums = rows.sums([=](size_t at, int c, Vector& sum, Vector& products) {
        const Forward map(channels, c);
        const Vector input = load(z + at);
        const Vector g = masked<MASK>(load(dy + at), input, map, y + at);
        sum += g, products += g * (input - map.mean);
        if (MASK == FROM_Y) store(dresidual + at, g);
    });
    const double count = rows.count;
    std::vector<float> slopes(width), constants(width);
    for (int c = 0; c < width; c++) {
        const double g = sums[c], gz = sums[width + c], inverse = channels.inverse[c];
        dgamma[c] = gz * inverse, dbeta[c] = g;
        slopes[c] = -channels.scale[c] * inverse * inverse * gz / count;
        constants[c] = -channels.scale[c] * g / count;
    }
    const float *const slope = slopes.data(), *const constant = constants.data();
    rows.write(dz, [=](size_t at, int c) {
        const Forward map(channels, c);
        const Vector input = load(z + at);
        const Vector g = MASK == FROM_Y ? load(dresidual + at)  // masked by the first pass
                                        : masked<MASK>(load(dy + at), input, map, y + at);
        const Vector rest = (input - map.mean) * load_fp32(slope + c) + load_fp32(constant + c);
        return map.scale * g + rest;
    });
}

// Compute the gradients if the statistics are fixed: dz = scale g.
template <Mask MASK>
void differentiate_fixed(const Rows& rows, const Stored* y, const Stored* dy, Channels channels,
                         Stored* dz, Stored* dresidual) {
    rows.write(dz, [=](size_t at, int c) {
        const Forward map(channels, c);
        const Vector g = masked<MASK>(load(dy + at), Vector{}, map, y + at);
        if (dresidual) store(dresidual + at, g);
        return map.scale * g;
    });
}

}  // namespace

// ---- the functions that Python calls. Maps are [count][channels], channels a multiple of LANES;
// `numbers` is [4][channels].

extern "C" {

// Write y, and `numbers` for the backward pass. If `training`, batch norm uses the statistics of z
// and moves the running ones, which may be null; otherwise it uses the running ones. `residual` may
// be null.
void norm_forward(size_t count, int channels, int threads, const Stored* z, const Stored* residual,
                  bool relu, bool training, const float* gamma, const float* beta,
                  float* running_mean, float* running_variance, double momentum, double epsilon,
                  float* numbers, Stored* y) {
    const Rows rows{count, channels, threads};
    Channels described(numbers, channels);
    if (training)
        measure(rows, z, gamma, beta, running_mean, running_variance, momentum, epsilon, described);
    else
        for (int c = 0; c < channels; c++)
            described.set(c, running_mean[c], running_variance[c], epsilon, gamma[c], beta[c]);
    auto* const work = residual ? apply<true, true>
                       : relu   ? apply<true, false>
                                : apply<false, false>;
    work(rows, z, residual, described, y);
}

// Write the gradients after `norm_forward` with `training`. With a residual, `y` is the output;
// otherwise it is null.
void norm_backward(size_t count, int channels, int threads, const Stored* z, const Stored* y,
                   const Stored* dy, bool relu, float* numbers, Stored* dz, Stored* dresidual,
                   float* dgamma, float* dbeta) {
    const Rows rows{count, channels, threads};
    const Channels described(numbers, channels);
    auto* const work = y      ? differentiate<FROM_Y>
                       : relu ? differentiate<FROM_Z>
                              : differentiate<UNMASKED>;
    work(rows, z, y, dy, described, dz, dresidual, dgamma, dbeta);
}

// Write the gradients after `norm_forward` without `training`. With ReLU, `y` is its output;
// otherwise it is null.
void norm_backward_fixed(size_t count, int channels, int threads, const Stored* y,
                         const Stored* dy, float* numbers, Stored* dz, Stored* dresidual) {
    const Rows rows{count, channels, threads};
    const Channels described(numbers, channels);
    auto* const work = y ? differentiate_fixed<FROM_Y> : differentiate_fixed<UNMASKED>;
    work(rows, y, dy, described, dz, dresidual);
}
}
