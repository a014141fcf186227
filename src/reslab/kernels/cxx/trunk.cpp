// The trunk of a 6n+2 net (Sec. 4.2): all of it but the classifier, forward and backward.
//
// A node is a ReLU's output `a` = ReLU(batch norm(z) + shortcut), where z is the convolution of the
// node before; node 0 holds the images. A pass over the images computes z of one node and, while
// the image is in the cache, first finishes `a` of the node before, whose statistics are now known.
//
// Images are divided into chunks of a fixed number. Each chunk has sums of its own, added in the
// order of the chunks: the bits depend neither on the number of threads nor on their timing.
#include <stdlib.h>
#include <sys/mman.h>

#include <memory>
#include <new>

#include "convolution.h"

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
#endif

constexpr int CHUNK = 8;  // images
constexpr int STAGES = 3;

// Zeroed memory in large pages where the system has them: it is used again in every iteration.
template <class Number>
class Memory {
public:
    void resize(size_t count) {
        constexpr size_t PAGE = 1 << 21;
        const size_t bytes = (count * sizeof(Number) + 256 + PAGE - 1) & ~(PAGE - 1);
        numbers.reset((Number*)aligned_alloc(PAGE, bytes));
        if (!numbers) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        madvise(numbers.get(), bytes, MADV_HUGEPAGE);
#endif
        std::memset((void*)numbers.get(), 0, bytes);
    }
    operator Number*() const { return numbers.get(); }

private:
    struct Free {
        void operator()(Number* numbers) { free(numbers); }
    };
    std::unique_ptr<Number, Free> numbers;
};

enum Shortcut { NONE, UNWEIGHTED, PROJECTION };  // UNWEIGHTED: the identity, or option A

struct Node {
    Conv conv{}, projection{};
    Shortcut shortcut = NONE;  // from two nodes before
    int side = 0, channels = 0;
    Memory<Stored> a, z, projected;

    size_t padded() const { return size_t(side + 2) * (side + 2) * channels; }
    size_t pixels() const { return size_t(side) * side; }
    size_t plain() const { return pixels() * channels; }
    // Where `a` is not kept, it is computed again from z for the backward pass: that is cheaper than
    // to write and to read it.
    bool kept() const { return a; }
};

// What a thread works in. The maps keep their border of zeros.
struct Workspace {
    Memory<Stored> a[STAGES], dz[STAGES], scratch;
};

struct Trunk {
    int side = 0, images = 0, threads = 1;
    std::vector<Node> nodes;
    std::vector<Workspace> workspaces;
    Memory<Stored> gradients[3];   // g of node i is in number i % 3
    std::vector<double> sums;      // [chunk][3][MOST_CHANNELS]
    Memory<float> weight_sums[2];  // [chunk][weights]: of a convolution, of a projection

    int chunks() const { return (images + CHUNK - 1) / CHUNK; }
    int stage(const Node& node) const { return node.side == side ? 0 : 2 * node.side == side ? 1 : 2; }
    Stored* a_of(int number, size_t image, const Workspace& workspace) const {
        const Node& node = nodes[number];
        return node.kept() ? node.a + image * node.padded() : workspace.a[stage(node)];
    }
    Stored* g_of(int node, size_t image) const {
        return gradients[node % 3] + image * nodes[node].plain();
    }
    double* sums_of(int chunk) { return &sums[size_t(chunk) * 3 * MOST_CHANNELS]; }

    // Call `work(image, chunk, workspace)` for all images: chunks in parallel, a chunk in order.
    template <class Work>
    void for_each_image(Work work) {
        const unsigned rounding = _mm_getcsr();  // whether denormal numbers count as zero
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int chunk = 0; chunk < chunks(); chunk++) {
            _mm_setcsr(rounding);
            Workspace& workspace = workspaces[omp_get_thread_num()];
            std::fill_n(sums_of(chunk), 3 * MOST_CHANNELS, 0.0);
            const int end = std::min(images, (chunk + 1) * CHUNK);
            for (int image = chunk * CHUNK; image < end; image++) work(image, chunk, workspace);
        }
    }

    // Return the sums over all chunks, [3][MOST_CHANNELS].
    std::vector<double> total() {
        std::vector<double> all(3 * MOST_CHANNELS);
        for (int chunk = 0; chunk < chunks(); chunk++)
            for (size_t k = 0; k < all.size(); k++) all[k] += sums_of(chunk)[k];
        return all;
    }
};

// Call `work.template operator()<IN, OUT>()` with the channels of a convolution as constants.
template <class Work>
static void with_channels(const Conv& conv, Work work) {
    using std::integral_constant;
    auto call = [&](auto in, auto out) {
        if (conv.in == in && conv.out == out) work(in, out);
    };
    integral_constant<int, 4> image;
    integral_constant<int, 16> first;
    integral_constant<int, 32> second;
    integral_constant<int, 64> third;
    call(image, first), call(first, first);
    call(first, second), call(second, second);
    call(second, third), call(third, third);
}

// ---- forward

static void copy_image(const float* image, int side, Stored* to) {
    to += first_pixel(side, 4);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++)
                to[y * row_step(side, 4) + x * 4 + c] = stored(image[(y * side + x) * 3 + c]);
}

// Write `a` of one image, from z and the shortcut's source or its projection.
template <int CHANNELS>
static void activate(const Node& node, const Node* source, size_t image, Stored* a) {
    const bool skips = node.shortcut == UNWEIGHTED, projects = node.shortcut == PROJECTION;
    const int side = node.side;
    const Stored* z = node.z + image * node.plain();
    const Stored* projected = projects ? node.projected + image * node.plain() : z;
    const Stored* skip = nullptr;
    std::ptrdiff_t skip_row = 0;
    int skip_pixel = 0, skip_channels = 0;
    if (skips) {  // at every second row and pixel, where the map is halved
        const int stride = source->side / side;
        skip = source->a + image * source->padded() + first_pixel(source->side, source->channels);
        skip_row = stride * row_step(source->side, source->channels);
        skip_pixel = stride * source->channels;
        skip_channels = source->channels;
    }
    a += first_pixel(side, CHANNELS);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++, z += CHANNELS, projected += CHANNELS)
            UNROLL for (int c = 0; c < CHANNELS; c += LANES) {
                Vector number = Forward(node.conv.norm, c)(load(z + c));
                if (projects) number += Forward(node.projection.norm, c)(load(projected + c));
                if (c < skip_channels) number += load(skip + y * skip_row + x * skip_pixel + c);
                store(a + y * row_step(side, CHANNELS) + x * CHANNELS + c, relu(number));
            }
}

// Write `a` of one image where it belongs, and return it.
static Stored* activate(const Trunk& trunk, int number, size_t image, const Workspace& workspace) {
    const Node& node = trunk.nodes[number];
    const Node* source = node.shortcut == NONE ? nullptr : &trunk.nodes[number - 2];
    Stored* a = trunk.a_of(number, image, workspace);
    if (node.channels == 16) activate<16>(node, source, image, a);
    if (node.channels == 32) activate<32>(node, source, image, a);
    if (node.channels == 64) activate<64>(node, source, image, a);
    return a;
}

// The tensors of a convolution and its batch norm, as Python passes them.
struct Tensors {
    const float *weight, *gamma, *beta;
    float *running_mean, *running_variance;
};
struct Gradients {
    float *weight, *gamma, *beta;
};

static void set_forward(Conv& conv, const Tensors& tensors, const double* sums, int images,
                        double momentum, double epsilon) {
    conv.norm.set_forward(sums, sums + MOST_CHANNELS, conv.out, double(images) * conv.pixels(),
                          tensors.gamma, tensors.beta, tensors.running_mean,
                          tensors.running_variance, momentum, epsilon);
}

// What `forward_pass` reads of an image.
static Ahead inputs_ahead(const Trunk& trunk, int number, int image) {
    Ahead ahead;
    if (image == trunk.images || number == 1) return ahead;
    const Node& input = trunk.nodes[number - 1];
    ahead.add(input.z + image * input.plain(), input.plain());
    if (input.shortcut == UNWEIGHTED) {
        const Node& source = trunk.nodes[number - 3];
        ahead.add(source.a + image * source.padded(), source.padded());
    }
    if (input.kept()) ahead.add(input.a + image * input.padded(), input.padded());  // is written
    return ahead;
}

// Compute z of a node and its statistics; first finish the node before.
static void forward_pass(Trunk& trunk, Node& node, int number, const float* images,
                         const Tensors& tensors, double momentum, double epsilon) {
    const Node& input = trunk.nodes[number - 1];
    trunk.for_each_image([&](int image, int chunk, Workspace& workspace) {
        Stored* a = trunk.a_of(number - 1, image, workspace);
        if (number == 1) copy_image(images + image * 3 * input.pixels(), input.side, a);
        else activate(trunk, number - 1, image, workspace);
        const Ahead ahead = inputs_ahead(trunk, number, image + 1);
        with_channels(node.conv, [&](auto in, auto out) {
            convolve<in, out>(node.conv, a, node.z + image * node.plain(),
                              trunk.sums_of(chunk), ahead);
        });
    });
    set_forward(node.conv, tensors, trunk.total().data(), trunk.images, momentum, epsilon);
}

// Compute the projection of a node's shortcut and its statistics, from two nodes before.
static void projection_pass(Trunk& trunk, Node& node, int number, const Tensors& tensors,
                            double momentum, double epsilon) {
    const Node& source = trunk.nodes[number - 2];
    trunk.for_each_image([&](int image, int chunk, Workspace&) {
        with_channels(node.projection, [&](auto in, auto out) {
            convolve<in, out>(node.projection, source.a + image * source.padded(),
                              node.projected + image * node.plain(), trunk.sums_of(chunk));
        });
    });
    set_forward(node.projection, tensors, trunk.total().data(), trunk.images, momentum, epsilon);
}

static void pack_weights(Trunk& trunk, const Tensors* tensors) {
    std::vector<Conv*> convs;
    for (size_t number = 1; number < trunk.nodes.size(); number++) {
        convs.push_back(&trunk.nodes[number].conv);
        if (trunk.nodes[number].shortcut == PROJECTION)
            convs.push_back(&trunk.nodes[number].projection);
    }
#pragma omp parallel for schedule(dynamic) num_threads(trunk.threads)
    for (size_t k = 0; k < convs.size(); k++) pack(*convs[k], tensors[k].weight);
}

static void pool(const Stored* a, int side, int channels, float* features) {
    a += first_pixel(side, channels);
    for (int c = 0; c < channels; c += LANES) {
        Vector sum{};
        for (int y = 0; y < side; y++)
            for (int x = 0; x < side; x++)
                sum += load(a + y * row_step(side, channels) + x * channels + c);
        store_fp32(features + c, sum / float(side * side));
    }
}

// ---- backward

// What follows the gradient of `a` of a node, see `InputGradient`.
static InputGradient gradient_of(Trunk& trunk, size_t number, size_t image, const Stored* a,
                                 int chunk) {
    const Node& node = trunk.nodes[number];
    InputGradient to{};
    to.g = trunk.g_of(number, image);
    to.a = a;
    if (number + 2 < trunk.nodes.size() && trunk.nodes[number + 2].shortcut == UNWEIGHTED) {
        to.skip = trunk.g_of(number + 2, image);
        to.halved = trunk.nodes[number + 2].side != node.side;
    }
    to.z = node.z + image * node.plain();
    to.mean = node.conv.norm.mean;
    if (node.shortcut == PROJECTION) {
        to.projected = node.projected + image * node.plain();
        to.projected_mean = node.projection.norm.mean;
    }
    to.sums = trunk.sums_of(chunk);
    return to;
}

// `a` of one image after the forward pass.
static const Stored* recall(const Trunk& trunk, int number, size_t image,
                            const Workspace& workspace) {
    if (trunk.nodes[number].kept()) return trunk.a_of(number, image, workspace);
    return activate(trunk, number, image, workspace);
}

// The gradient of the last node from that of the pooled features.
static void unpool(Trunk& trunk, const float* features) {
    const size_t last = trunk.nodes.size() - 1;
    const int side = trunk.nodes[last].side, channels = trunk.nodes[last].channels;
    trunk.for_each_image([&](int image, int chunk, Workspace& workspace) {
        const Stored* a = recall(trunk, last, image, workspace);
        const InputGradient to = gradient_of(trunk, last, image, a, chunk);
        for (int c = 0; c < channels; c += LANES) {
            const Vector number =
                load_fp32(features + size_t(image) * channels + c) / float(side * side);
            for (int y = 0; y < side; y++) {
                ChannelSums sums(to, c);
                for (int x = 0; x < side; x++) sums.finish(number, y, x, side, channels, true);
                sums.add();
            }
        }
    });
}

// The gradient of a convolution's output, into a padded map, from that of its batch norm's output.
template <int CHANNELS>
static void norm_gradient(const Norm& norm, int side, const Stored* g, const Stored* z,
                          Stored* dz) {
    dz += first_pixel(side, CHANNELS);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++, g += CHANNELS, z += CHANNELS)
            UNROLL for (int c = 0; c < CHANNELS; c += LANES)
                store(dz + y * row_step(side, CHANNELS) + x * CHANNELS + c,
                      Backward(norm, c)(load(g + c), load(z + c)));
}

// dz of one image, and its part of the weight gradient.
template <int KERNEL, int IN, int OUT>
static void output_gradient(const Conv& conv, const Stored* x, const Stored* g, const Stored* z,
                            Stored* dz, float* weight_sums, Stored* scratch, Ahead ahead = {}) {
    constexpr int STRIDE = IN == 4 || IN == OUT ? 1 : 2;
    norm_gradient<OUT>(conv.norm, conv.side, g, z, dz);
    weight_gradient<IN, OUT, STRIDE, KERNEL>(conv.side, x, dz, weight_sums, scratch, ahead);
}

static void write_weight_gradient(Trunk& trunk, const Conv& conv, const float* sums,
                                  float* gradient) {
    const int channels = gradient_channels(conv.in, conv.kernel), blocks = conv.in / channels;
#pragma omp parallel for schedule(static) num_threads(trunk.threads)
    for (int block = 0; block < conv.kernel * blocks; block++)
        reduce_weight_gradient(conv, sums, trunk.chunks(), block / blocks,
                               block % blocks * channels, gradient);
}

static void set_backward(Conv& conv, const double* g, const double* gz, int images,
                         const Gradients& gradients) {
    conv.norm.set_backward(g, gz, conv.out, double(images) * conv.pixels(), gradients.gamma,
                           gradients.beta);
}

// From the gradient of node `number`: those of its weights, and of the node before with its norms.
static void backward_pass(Trunk& trunk, size_t number) {
    Node& node = trunk.nodes[number];
    const Node& input = trunk.nodes[number - 1];
    const Conv& conv = node.conv;
    Node* beside = number + 1 < trunk.nodes.size() ? &trunk.nodes[number + 1] : nullptr;
    if (beside && beside->shortcut != PROJECTION) beside = nullptr;
    const size_t size = conv.weights(), projected_size = beside ? beside->projection.weights() : 0;
    trunk.for_each_image([&](int image, int chunk, Workspace& workspace) {
        float* sums = trunk.weight_sums[0] + chunk * size;
        float* projected_sums = trunk.weight_sums[1] + chunk * projected_size;
        if (image % CHUNK == 0) {
            std::fill_n(sums, size, 0.f);
            std::fill_n(projected_sums, projected_size, 0.f);
        }
        Stored *dz = workspace.dz[trunk.stage(node)], *projected_dz = dz + node.padded();
        const Stored* x = recall(trunk, number - 1, image, workspace);
        const size_t place = image * node.plain();
        Ahead ahead_here, ahead_next;
        InputGradient to{};
        if (number > 1) {
            to = gradient_of(trunk, number - 1, image, x, chunk);
            if (input.kept()) ahead_here.add(to.z, input.plain());
            if (to.skip) ahead_here.add(to.skip, trunk.nodes[number + 1].plain());
        }
        if (image + 1 < trunk.images) {
            ahead_next.add(trunk.g_of(number, image + 1), node.plain());
            ahead_next.add(node.z + place + node.plain(), node.plain());
            if (input.kept()) ahead_next.add(x + input.padded(), input.padded());
            else ahead_next.add(input.z + (image + 1) * input.plain(), input.plain());
        }
        with_channels(conv, [&](auto in, auto out) {
            output_gradient<3, in, out>(conv, x, trunk.g_of(number, image), node.z + place, dz,
                                        sums, workspace.scratch, ahead_here);
            if (number == 1) return;
            if constexpr (in >= LANES) {
                if (beside)
                    output_gradient<1, in, out>(
                        beside->projection, x, trunk.g_of(number + 1, image),
                        beside->projected + place, projected_dz, projected_sums,
                        workspace.scratch);
                input_gradient<in, out>(conv, dz, beside ? &beside->projection : nullptr,
                                        projected_dz, to, ahead_next);
            }
        });
    });
}

static Conv new_conv(int in, int out, int kernel, int stride, int side) {
    Conv conv{};
    conv.in = in, conv.out = out, conv.kernel = kernel, conv.stride = stride, conv.side = side;
    return conv;
}

// ---- the functions that Python calls. `tensors` and `gradients` have an entry for each
// convolution: that of the main path, then the projection that is added to it.

extern "C" {

// Return a trunk for at most `capacity` images, or null if the memory does not suffice. `layers`
// holds for each convolution of the main path: output channels, stride, Shortcut.
void* trunk_create(int side, int capacity, int threads, int count, const int (*layers)[3]) try {
    auto trunk = std::make_unique<Trunk>();
    trunk->side = side, trunk->threads = threads;
    trunk->nodes.resize(count + 1);
    trunk->nodes[0].side = side, trunk->nodes[0].channels = 4;
    trunk->nodes[0].a.resize(capacity * trunk->nodes[0].padded());
    size_t map = 0, row = 0, weights = 0, projected = 0;
    for (int number = 1; number <= count; number++) {
        const auto [channels, stride, shortcut] = layers[number - 1];
        Node &node = trunk->nodes[number], &before = trunk->nodes[number - 1];
        node.side = before.side / stride, node.channels = channels;
        node.shortcut = Shortcut(shortcut);
        node.conv = new_conv(before.channels, channels, 3, stride, node.side);
        const bool is_source = number + 2 <= count && layers[number + 1][2] != NONE;
        if (node.shortcut != NONE || is_source) node.a.resize(capacity * node.padded());
        node.z.resize(capacity * node.plain());
        if (shortcut == PROJECTION) {
            const Node& source = trunk->nodes[number - 2];
            node.projection =
                new_conv(source.channels, channels, 1, source.side / node.side, node.side);
            node.projected.resize(capacity * node.plain());
            projected = std::max(projected, node.projection.weights());
        }
        map = std::max(map, node.plain());
        row = std::max<size_t>(row, row_step(before.side, before.channels) + LANES);
        weights = std::max(weights, node.conv.weights());
    }
    const size_t chunks = (capacity + CHUNK - 1) / CHUNK;
    for (auto& g : trunk->gradients) g.resize(capacity * map);
    trunk->sums.resize(chunks * 3 * MOST_CHANNELS);
    trunk->weight_sums[0].resize(chunks * weights);
    trunk->weight_sums[1].resize(chunks * projected);
    trunk->workspaces.resize(threads);
    for (auto& workspace : trunk->workspaces) {
        for (const Node& node : trunk->nodes)
            if (node.channels > 4 && !workspace.dz[trunk->stage(node)])
                workspace.dz[trunk->stage(node)].resize(2 * node.padded()),
                    workspace.a[trunk->stage(node)].resize(node.padded());
        workspace.scratch.resize(2 * GRADIENT_ROWS * GROUP * row);
    }
    return trunk.release();
} catch (const std::bad_alloc&) {
    return nullptr;
}

void trunk_destroy(void* trunk) { delete (Trunk*)trunk; }

// `images` are channels last, [count][side][side][3]; `features` [count][channels].
void trunk_forward(void* handle, const float* images, int count, const Tensors* tensors,
                   double momentum, double epsilon, float* features) {
    Trunk& trunk = *(Trunk*)handle;
    trunk.images = count;
    pack_weights(trunk, tensors);
    const int last = int(trunk.nodes.size()) - 1;
    for (int number = 1; number <= last; number++, tensors++) {
        Node& node = trunk.nodes[number];
        forward_pass(trunk, node, number, images, *tensors, momentum, epsilon);
        if (node.shortcut != PROJECTION) continue;
        tensors++;
        projection_pass(trunk, node, number, *tensors, momentum, epsilon);
    }
    const Node& node = trunk.nodes[last];
    trunk.for_each_image([&](int image, int, Workspace& workspace) {
        const Stored* a = activate(trunk, last, image, workspace);
        pool(a, node.side, node.channels, features + image * node.channels);
    });
}

// The gradients of all weights, from that of the features of the last forward pass.
void trunk_backward(void* handle, const float* features, int entries, const Gradients* gradients) {
    Trunk& trunk = *(Trunk*)handle;
    const size_t last = trunk.nodes.size() - 1;
    const Gradients *entry = gradients + entries, *beside = nullptr;
    unpool(trunk, features);
    for (size_t number = last; number >= 1; number--) {
        Node& node = trunk.nodes[number];
        const auto total = trunk.total();
        const double* sums = total.data();
        const Gradients* projection = node.shortcut == PROJECTION ? --entry : nullptr;
        const Gradients* main = --entry;
        set_backward(node.conv, sums, sums + MOST_CHANNELS, trunk.images, *main);
        if (projection)
            set_backward(node.projection, sums, sums + 2 * MOST_CHANNELS, trunk.images,
                         *projection);
        backward_pass(trunk, number);
        write_weight_gradient(trunk, node.conv, trunk.weight_sums[0], main->weight);
        if (beside)
            write_weight_gradient(trunk, trunk.nodes[number + 1].projection,
                                  trunk.weight_sums[1], beside->weight);
        beside = projection;
    }
}
}
